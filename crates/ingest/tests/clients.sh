#!/usr/bin/env bash
# Sends records with real clients: clients.sh HTTP_PORT TCP_PORT SYSLOG_TCP_PORT SYSLOG_UDP_PORT
# Prints "sent <door> <records> <client>" for each, and "skipped: …" for one that is not installed.
# Ends with 1 when a client reports an error.
set -uo pipefail
http=$1 tcp=$2 syslog=$3 udp=$4
base=http://127.0.0.1:$http
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() { echo "failed: $1"; failed=1; }

records=$base/api/v1/streams/events/records
printf '{"event_id":"c%d","user":"ann"}\n' 1 2 3 > "$work/lines.json"
gzip -k "$work/lines.json"
answer=$(curl -sS --fail-with-body --data-binary @"$work/lines.json" "$records") \
  && echo "$answer" | grep -q '"accepted":3' && echo "sent http 3 curl" || fail "curl: $answer"
answer=$(curl -sS --fail-with-body -H 'Content-Encoding: gzip' -H 'Idempotency-Key: k1' \
  --data-binary @"$work/lines.json.gz" "$records") \
  && echo "$answer" | grep -q '"accepted":3' && echo "sent http 3 curl-gzip" || fail "curl gzip: $answer"
# Over a megabyte curl asks first (Expect: 100-continue).
for _ in $(seq 50000); do echo '{"event_id":"big","user":"bob"}'; done > "$work/big.json"
answer=$(curl -sS --fail-with-body -T "$work/big.json" -X POST "$records") \
  && echo "$answer" | grep -q '"accepted":50000' && echo "sent http 50000 curl-chunked" || fail "curl big: $answer"
printf '{"create":{"_index":"logs"}}\n{"a":1}\n{"index":{"_index":"logs","_id":"7"}}\n{"a":2}\n' > "$work/bulk"
answer=$(curl -sS --fail-with-body -H 'Content-Type: application/x-ndjson' --data-binary @"$work/bulk" "$base/_bulk") \
  && echo "$answer" | grep -q '"errors":false' && echo "sent http 2 curl-bulk" || fail "curl bulk: $answer"

if exec 3<>"/dev/tcp/127.0.0.1/$tcp"; then
  printf 'a plain line\n{"user":"ann"}\n' >&3
  exec 3>&-
  echo "sent tcp 2 bash"
fi

if command -v logger >/dev/null; then
  logger --server 127.0.0.1 --port "$syslog" --tcp --rfc5424 -t app 'tcp newline 5424' || fail "logger tcp"
  logger --server 127.0.0.1 --port "$syslog" --tcp --rfc3164 -t app 'tcp newline 3164' || fail "logger tcp"
  logger --server 127.0.0.1 --port "$syslog" --tcp --octet-count --rfc5424 -t app 'tcp counted' || fail "logger tcp"
  echo "sent syslog-tcp 3 logger"
  logger --server 127.0.0.1 --port "$udp" --udp --rfc5424 -t app 'udp 5424' || fail "logger udp"
  logger --server 127.0.0.1 --port "$udp" --udp --rfc3164 -t app 'udp 3164' || fail "logger udp"
  logger --server 127.0.0.1 --port "$udp" --udp --sd-id 'x@1' --sd-param 'a="b"' --rfc5424 -t app 'udp sd' || fail "logger udp"
  echo "sent syslog-udp 3 logger"
else
  echo "skipped: logger is not installed"
fi

if ${PYTHON:-python3} -c 'import elasticsearch' 2>/dev/null; then
  ${PYTHON:-python3} - "$base" <<'PYTHON' || fail "the Elasticsearch Python client"
import sys
import elasticsearch
from elasticsearch import Elasticsearch, helpers
client = Elasticsearch(sys.argv[1])
assert client.ping()
assert client.info()["tagline"] == "You Know, for Search"
assert not client.indices.exists(index="logs-py")
client.indices.create(index="logs-py")
client.indices.put_index_template(name="t", index_patterns=["logs-*"])
assert client.cluster.health()["status"] == "green"
actions = ({"_index": "logs-py", "_id": str(n), "_source": {"n": n}} for n in range(1200))
done, errors = helpers.bulk(client, actions, chunk_size=500)
assert (done, errors) == (1200, []), (done, errors)
create = ({"_op_type": "create", "_index": "logs-py", "_source": {"n": n}} for n in range(10))
done, errors = helpers.bulk(client, create)
assert done == 10
assert client.index(index="logs-py", document={"n": 1})["result"] == "created"
wrong = [{"_op_type": "delete", "_index": "logs-py", "_id": "1"}]
done, errors = helpers.bulk(client, wrong, raise_on_error=False)
assert done == 0 and errors[0]["delete"]["status"] == 400, errors
print("sent http 1211 python-elasticsearch", elasticsearch.__versionstr__)
PYTHON
else
  echo "skipped: the Elasticsearch Python client is not installed (pip install elasticsearch)"
fi

if command -v rsyslogd >/dev/null && ls /usr/lib/*/rsyslog/omelasticsearch.so >/dev/null 2>&1; then
  printf 'May  1 12:00:00 host app[1]: rsyslog %d\n' 1 2 3 4 5 > "$work/in.log"
  cat > "$work/rsyslog.conf" <<CONF
global(workDirectory="$work")
module(load="imfile")
module(load="omelasticsearch")
template(name="doc" type="list" option.json="on") {
  constant(value="{\"message\":\"") property(name="msg") constant(value="\",\"host\":\"") property(name="hostname") constant(value="\"}")
}
input(type="imfile" file="$work/in.log" tag="in" ruleset="out")
ruleset(name="out") {
  action(type="omelasticsearch" server="127.0.0.1" serverport="$http" template="doc" searchIndex="rsyslog" searchType="" bulkmode="on" errorfile="$work/errors")
  action(type="omfwd" target="127.0.0.1" port="$syslog" protocol="tcp" TCP_Framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format")
}
CONF
  rsyslogd -n -f "$work/rsyslog.conf" -i "$work/pid" > "$work/rsyslog.out" 2>&1 &
  daemon=$!
  sleep 4
  kill "$daemon"
  wait "$daemon"
  if [ -s "$work/errors" ]; then fail "rsyslog: $(head -c 500 "$work/errors")"; fi
  echo "sent http 5 rsyslog-omelasticsearch"
  echo "sent syslog-tcp 5 rsyslog-omfwd"
else
  echo "skipped: rsyslog with omelasticsearch is not installed (apt-get install rsyslog rsyslog-elasticsearch)"
fi
exit $failed
