//! Abuse of the protocol: header injection, smuggled requests, methods that nobody needs, character
//! sets that hide content.

use super::{Places, Rule, rule};
use crate::threat::Class::Protocol;

const ANY: Places = Places::ANY;
const WEB: Places = Places::WEB;
const REQUEST: Places = Places::REQUEST;
const SENT: Places = Places::SENT;

pub(super) const RULES: &[Rule] = &[
    rule(
        Protocol,
        88,
        SENT,
        &[
            "set-cookie:",
            "location:",
            "content-type:",
            "content-length:",
            "transfer-encoding:",
            "http/1",
            "http/2",
            "http/3",
            "host:",
            "x-forwarded",
            "refresh:",
        ],
        r"\n\s?(?:set-cookie|location|content-type|content-length|transfer-encoding|x-forwarded\S{0,10}|refresh|host)\s?:|(?:^|\n|=|\s)(?:get|post|head|put|delete|options|trace|connect)\s\S+\shttp/\d",
        "header or request inside a value",
    ),
    rule(
        Protocol,
        72,
        WEB,
        &["trace /", "track /", "debug /", "connect ", "propfind /"],
        r#"(?:^|["\s])(?:trace|track|debug)\s/[^\s]*\shttp/|(?:^|")connect\s[\w.:-]+\shttp/"#,
        "method that is used for probing",
    ),
    rule(
        Protocol,
        75,
        ANY,
        &[
            "utf-7",
            "utf7",
            "utf-16",
            "utf-32",
            "shift-jis",
            "shift_jis",
            "euc-",
            "iso-2022",
            "ebcdic",
            "hz-gb",
        ],
        r#"charset\s?=\s?["']?(?:utf-?7|utf-?16|utf-?32|shift[-_]jis|euc-|iso-2022|ibm\d|cp\d{3}|utf-ebcdic|hz-gb)"#,
        "character set that hides content",
    ),
    rule(
        Protocol,
        60,
        REQUEST,
        &["_method=", "x-http-method"],
        r"\b_method=(?:delete|put|patch|trace|connect|options|propfind|proppatch|mkcol|copy|move|lock)\b",
        "overridden method",
    ),
    rule(
        Protocol,
        75,
        REQUEST,
        &["rcpt to:", "mail from:", "ehlo ", "a001 ", "helo ", "data\n", "quit", "bcc:", "fetch "],
        r"\n\s?(?:rcpt\s+to:|mail\s+from:|ehlo\s|helo\s|data\s|quit\b|bcc:|cc:|to:|[a-z]\d{2,4}\s+(?:login|select|fetch|store|append|list|uid|logout|create|delete|capability|noop|copy|search)\b|(?:user|pass|retr|stat|dele|list|uidl|vrfy|expn|rset|noop|top)\b)",
        "mail command inside a value",
    ),
    rule(
        Protocol,
        55,
        REQUEST,
        &["session", "sid=", "sessid", "token="],
        r"[?&](?:php|j|asp\.net_|aspx?)sess(?:ion)?id?=",
        "session id in a URL",
    ),
];
