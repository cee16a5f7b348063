//! Scanners: tools that name themselves, and the paths that are asked for only to find a weakness.

use super::{Places, Rule, rule};
use crate::threat::Class::Scanner;

const WEB: Places = Places::WEB;
const REQUEST: Places = Places::REQUEST;

pub(super) const RULES: &[Rule] = &[
    rule(
        Scanner,
        88,
        WEB,
        &[
            "sqlmap", "nikto", "zgrab", "gobuster", "dirbuster", "wfuzz", "feroxbuster", "acunetix",
            "netsparker", "openvas", "w3af", "wpscan", "joomscan", "zaproxy", "jorgee", "morfeus",
            "zmeu", "l9explore", "l9tcpid", "interactsh", "burpcollaborator", "skipfish",
            "webinspect", "grendel-scan", "masscan", "nmap scripting", "fimap", "arachni",
            "projectdiscovery", "datacha0s", "webshag", "cgichk", "sqlninja", "whatweb", "dirsearch",
            "nmaplowercheck", "nice%20ports", "nice ports,/tri", "xsstrike", "commix/", "havij",
            "owasp zap", "bsqlbf", "n-stealth", "golismero", "jaeles", "rustbuster", "kiterunner",
            "wapiti", "absinthe", "pangolin", "metasploit", "cobalt strike", "nessus", "oastify",
            "oast.live", "oast.fun", "oast.pro", "oast.site", "oast.online", "oast.me", "httpx - ",
        ],
        "",
        "tool of attackers or scanners",
    ),
    rule(
        Scanner,
        80,
        WEB,
        &["nuclei", "hydra", "paros", "ffuf", "qualys", "medusa", "brutus", "appscan", "vega/", "dirb", "burp", "nmap", "whisker", "patator", "legion", "x-scan", "blackwidow"],
        r"\bnuclei\s?(?:-|/|v\d)|\((?:hydra|nuclei|ffuf|dirb)\)|\b(?:hydra|paros|ffuf|qualys\w*|medusa|brutus|appscan|vega|dirb|burp\w*|nmap|whisker|patator|legion|x-scan|blackwidow)/\s?v?\d|fuzz faster u fool|burp ?suite",
        "tool of attackers or scanners",
    ),
    rule(
        Scanner,
        60,
        Places::AGENT,
        &["libwww-perl", "lwp-trivial", "lwp::", "python-urllib", "masscan", "censys", "expanse", "internet-measurement", "scanner", "shodan", "internetmeasure", "netcraft", "scrapy", "wordpress hash", "mechanize"],
        r"^(?:libwww-perl|lwp-trivial|lwp::|python-urllib|scrapy)|censysinspect|expanse, a palo|internet-?measurement|shodan|\bscanner\b|netcraft",
        "scripted client",
    ),
    rule(
        Scanner,
        45,
        Places::AGENT,
        &["python-requests", "go-http-client", "curl/", "wget/", "okhttp", "java/", "httpclient", "aiohttp", "node-fetch", "ruby", "winhttp", "powershell/"],
        r"^(?:python-requests|go-http-client|curl|wget|aiohttp|ruby|java)/|powershell/\d",
        "client without a browser",
    ),
    rule(
        Scanner,
        78,
        REQUEST,
        &[
            "/.env", "/.git", "/.svn", "/.hg/", "/.ds_store", "/.aws", "/.ssh", "/.vscode",
            "/.idea", "/.docker", "/.kube", "/.npmrc", "/.bash", "/.ht", "/.htpasswd", "/.config",
            "/.claude", "/.cursor", "/.",
        ],
        r"(?:^|[\s/])/?[^\s?#]*/\.(?:env|git|svn|hg|ds_store|aws|ssh|vscode|idea|docker|kube|npmrc|bash|ht|config|claude|cursor|bzr|terraform|travis|circleci|gitlab|github|s3cfg|pgpass|netrc|profile|mysql|my\.cnf|ftpconfig|remote|passwd|htaccess|composer|yarn|pypirc|gem|history|secret|token|cred)|^[^\s?#]*/\.[a-z0-9@_-]{2,30}(?:/[\w.@-]+)*(?:/|$|\?)",
        "hidden file or directory",
    ),
    rule(
        Scanner,
        75,
        REQUEST,
        &[
            "phpmyadmin", "wp-login.php", "xmlrpc.php", "wp-config", "wlwmanifest", "/manager/html",
            "/actuator", "/solr/", "/boaform", "/hudson", "/vendor/phpunit", "eval-stdin",
            "/_ignition", "/telescope", "/server-status", "/debug/pprof", "/owa/auth", "/ecp/",
            "/gponform", "setup.cgi", "/hnap1", "/evox/", "/sdk/", "/console/", "/jmx-console",
            "/invoker/", "/axis2", "/struts", "/cgi-bin/", "/_layouts", "/phpinfo", "/info.php",
            "/shell.php", "/c99.php", "/r57.php", "/webshell", "/cmd.php", "/adminer", "/pma/",
            "/mysqladmin", "/sqladmin", "/myadmin", "/web-console", "/stalker_portal", "/portal/redlion",
            "/autodiscover/", "/remote/fgt_lang", "/dana-na/", "/vpn/../", "/+cscoe+", "/tmui/",
            "/mgmt/tm/", "/druid/", "/nacos/", "/jenkins/", "/geoserver", "/containers/json",
            "/v2/_catalog", "/_cat/indices", "/?xdebug_session_start", "/luci/", "/goform/",
            "/currentsetting.htm", "/swagger", "/api-docs", "/wls-wsat", "/bea_wls", "/fckeditor",
            "/think", "/index/\\think", "invokefunction", "/login.cgi", "/cgi/", "/manager/",
        ],
        r"phpmyadmin|wp-login\.php|xmlrpc\.php|wp-config|wlwmanifest|/manager/(?:html|text|status)|/actuator(?:/|$|\s)|/solr/(?:admin|\S+/select)|/boaform|/hudson|/vendor/phpunit|eval-stdin|/_ignition|/telescope|/server-status|/debug/pprof|/owa/auth|/ecp/|/gponform|setup\.cgi|/hnap1|/evox/|/sdk/webl|/jmx-console|/invoker/|/axis2|/cgi-bin/[^\s?]*(?:\.\.|\.cgi\?|\.sh\b|;|%|php)|/_layouts/.*\.aspx|/phpinfo|/info\.php|/(?:shell|c99|r57|cmd|webshell)\.(?:php|jsp|aspx?)|/adminer|/pma/|/(?:mysql|sql|my)admin|/web-console|/stalker_portal|/portal/redlion|/autodiscover/|/remote/fgt_lang|/dana-na/|/tmui/|/mgmt/tm/|/nacos/|/containers/json|/v2/_catalog|/_cat/indices|xdebug_session_start|/luci/;|/goform/|/currentsetting\.htm|/wls-wsat|/bea_wls|/fckeditor|[\\/]think|invokefunction|/login\.cgi",
        "path that scanners probe",
    ),
    rule(
        Scanner,
        62,
        REQUEST,
        &[".bak", ".old", ".backup", ".sql", ".swp", ".swo", ".rdb", ".mdb", ".db", ".conf", ".ini", ".log", ".pem", ".key", ".pfx", ".kdbx", ".inc", ".orig", ".save", ".dump", ".dist", "~"],
        r"^(?:[a-z]{3,8}\s)?/[^\s?#]*(?:\.(?:bak|old|backup|sql|swp|swo|rdb|mdb|db|sqlite3?|pem|key|pfx|kdbx|inc|orig|save|dump|conf|ini)(?:\.(?:gz|zip|tar|bz2|7z))?|/(?:backup|dump|database|db|site|www|html)\.(?:zip|tar|tar\.gz|tgz|rar|7z))(?:$|\?|\s)",
        "backup or configuration file",
    ),
];
