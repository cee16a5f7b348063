"""Answers queries with chdb: a JSON line in, a JSON line out. The argument is the number of threads."""

import json
import sys
import time

try:
    from chdb.session import Session
except ImportError:
    sys.exit(3)

session = Session()
settings = f" SETTINGS max_threads = {int(sys.argv[1])}"
as_json = settings + ", output_format_json_quote_64bit_integers = 0"
# Whatever the engine itself prints goes elsewhere.
out, sys.stdout = sys.stdout, sys.stderr
print("ready", file=out, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try:
        if request["rows"]:
            text = str(session.query(request["sql"] + as_json, "JSONEachRow"))
            said = {"rows": [json.loads(row) for row in text.splitlines() if row]}
        else:
            begun = time.perf_counter()
            session.query(request["sql"] + settings, "Native")
            said = {"seconds": time.perf_counter() - begun}
    except Exception as error:
        said = {"error": str(error)}
    print(json.dumps(said), file=out, flush=True)
