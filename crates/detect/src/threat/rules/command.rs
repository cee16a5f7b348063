//! Command injection: a separator or substitution followed by a command, shells that are opened to
//! the network, and the tricks that hide a command from filters.
//!
//! In command lines of processes a command is no attack, so the rules about separators do not hold
//! there; those about reverse shells do.

use super::{Places, Rule, rule};
use crate::threat::Class::Cmdi;

const ANY: Places = Places::ANY;
const WEB: Places = Places::WEB;
const REQUEST: Places = Places::REQUEST;
const SENT: Places = Places::SENT;

pub(super) const RULES: &[Rule] = &[
    rule(
        Cmdi,
        88,
        WEB,
        &[";", "|", "`", "$(", "&&", "\n", "& "],
        r#"(?:[;|`\n]|\$\(|&&|(?:^|\s)&\s|<\(|>\()[\s+'"\\@({]{0,4}(?:sudo\s+|exec\s+|nohup\s+|env\s+)?(?:/?(?:[a-z0-9._-]{1,20}/){1,4})?(?:id|whoami|uname|ifconfig|ipconfig|netstat|nslookup|wget|curl|ncat|netcat|nc|bash|sh|zsh|ksh|csh|dash|cmd|cmd\.exe|powershell(?:\.exe)?|pwsh|python[23]?|perl|ruby|php|ping[6]?|sleep|printenv|systeminfo|tasklist|certutil|bitsadmin|mshta|rundll32|regsvr32|wmic|cat|ls|chmod|chown|nohup|telnet|tftp|socat|scp|mkfifo|lwp-download|lwp-request|phpinfo|hostname|traceroute|tcpdump|useradd|passwd|crontab|dir|xterm|gcc|lynx|awk|sed|grep|base64|xxd|ss)(?:\s+(?:[^=\s]|$)|\s*[;|&`)<>"'}/]|\s*$|\.exe\b|\$)"#,
        "separator followed by a command",
    ),
    rule(
        Cmdi,
        75,
        WEB,
        &["|", "`", "$(", "&&", ";"],
        r#"(?:[;|`]|\$\(|&&)[\s+]{0,3}(?:/?(?:[a-z0-9._-]{1,20}/){1,4})?(?:echo|env|set|ps|w|who|kill|rm|mv|cp|touch|type|net|reg|sc|find|xargs|tar|ssh|ftp|head|tail|more|less|sort|wc|cut|tee|su|at|date|df|du|mount|last|pwd|true|false|expr|test|export|source|eval|time|printf|nice|timeout|watch|arp|route|dig|host|ip|finger|vi|vim|nano|strings|od|man|make|cc|go|node|java|del|copy|md|mkdir|rmdir|start|ver|attrib|exit|c89|c99|unxz|gzip|zip|busybox)(?:\s+(?:-{1,2}[a-z]|/[a-z]|[a-z]:\\|[$<>|&'"./~]|\d+\b)|\s*[;|&`)<>]|\s*$)"#,
        "separator followed by a common command",
    ),
    rule(
        Cmdi,
        80,
        WEB,
        &["`"],
        r"(?:^|[\s=;|&,(:])`[^`\n]*(?:\b(?:id|whoami|uname|cat|ls|ping|sleep|curl|wget|nslookup|dig|true|false|echo|ifconfig|hostname|pwd|env)\b|/bin/)[^`\n]*`",
        "command substitution",
    ),
    rule(
        Cmdi,
        75,
        REQUEST,
        &["`", "$("],
        r"=\s*[^&\s]*(?:`[^`&]+`|\$\([^)&]+\))",
        "substitution in a parameter",
    ),
    rule(
        Cmdi,
        70,
        WEB,
        &["/bin/", "/sbin/"],
        r#"^['"]?[\s;|&`(]*/?(?:usr/)?(?:local/)?s?bin/[a-z0-9]|[;|&`]\s*['"]?/?(?:usr/)?(?:local/)?s?bin/[a-z0-9]|/bin/(?:ba|da|z|k|c|tc)?sh\s+-[ci]|\busr/bin/(?:id|whoami)\b"#,
        "path of a program as a value",
    ),
    rule(
        Cmdi,
        70,
        REQUEST,
        &["/bin/", "/sbin/"],
        r#"[(=:\s]['"]?/(?:usr/)?(?:local/)?s?bin/[a-z0-9]"#,
        "path of a program in a request",
    ),
    rule(
        Cmdi,
        80,
        WEB,
        &["cat ", "cat<", "type ", "more ", "less ", "head ", "tail ", "dir ", "ping ", "ls ", "net user", "ping.exe"],
        r#"\b(?:cat|more|less|head|tail|tac|nl|strings)\s?<*\s*['"]?/(?:etc|proc|var|home|root)/|\btype\s+[a-z]:?[\\/]|\bdir[\s|]+[a-z]:|\bping(?:\.exe|6)?\s+-[nic]\s*\d+\s+\S|\bls\s+-[a-z]{1,4}\s+/|\bnet\s+user\s+\S+\s+\S+\s*/add"#,
        "command with its arguments",
    ),
    rule(
        Cmdi,
        92,
        ANY,
        &["/dev/tcp/", "/dev/udp/", "nc -", "ncat ", "netcat ", "bash -i", "mkfifo", "sh -i", "socat ", "pty.spawn", "busybox"],
        r#"/dev/(?:tcp|udp)/[\w.$]+/|\b(?:nc|ncat|netcat)(?:\.exe)?\s[^\n]*(?:-[a-z]*e[a-z]*\s|-[a-z]*l[a-z]*p|--exec|-c\s)|(?:ba|z|da|k)?sh\s+-i\b[^\n]{0,20}[>&|<]|mkfifo\s+/|socat\s[^\n]*exec:|pty\.spawn\s*\("#,
        "shell connected to the network",
    ),
    rule(
        Cmdi,
        88,
        ANY,
        &["curl", "wget", "fetch ", "lwp-download", "iwr ", "tftp"],
        r#"\b(?:curl|wget|fetch|lwp-download|tftp)\b[^\n]*(?:\|\s*(?:sudo\s+)?(?:ba|z|da|k)?sh\b|\|\s*(?:python|perl|php|ruby)|;\s*(?:chmod|sh|bash|perl|\./)|&&\s*(?:chmod|sh|bash|\./))|[;|&`(]\s*(?:curl|wget|lwp-download)\s+(?:-\S+\s+)*(?:https?|ftp)"#,
        "download that is run at once",
    ),
    rule(
        Cmdi,
        95,
        WEB,
        &["() {", "(){", "() :"],
        r"\(\s?\)\s*\{.*;?\s*\}?\s*;",
        "function definition in a value (Shellshock)",
    ),
    rule(
        Cmdi,
        85,
        WEB,
        &["$ifs", "${ifs", "$@", "$*", "$9", "${path", "${home", "$'\\", "${shell", "$((", "$["],
        r"\$\{?ifs\b|\w\$[@*9]\w|\$\{(?:path|home|shell|pwd):|\$'\\|\$\(\(|\$\[\s?\$",
        "shell variable that hides a separator",
    ),
    rule(
        Cmdi,
        82,
        WEB,
        &["/???/", "/b?n", "/bi?", "/e?c", "/et?", "?asswd", "/etc/pass?", "/e*c", "passw?", "ca?", "/*/", "{cat,", "{ls,", "{echo,", "{,"],
        r"/[a-z]{0,4}[?*]+[a-z?*]{0,4}/[a-z?*]+|/(?:bin|etc)/[a-z]{0,6}[?*\[][a-z?*\[\]]{0,6}|\{(?:cat|ls|echo|curl|wget|nc|ping|id|sh|bash)?,[^}\s]+\}",
        "wildcards or braces that hide a command",
    ),
    rule(
        Cmdi,
        90,
        WEB,
        &["<!--#", "<!-- #", "<!--\n#"],
        r"<!--\s?#\s?(?:exec|include|echo|printenv|config|flastmod|fsize|set)\b",
        "server-side include",
    ),
    rule(
        Cmdi,
        85,
        WEB,
        &["system(", "passthru(", "shell_exec(", "popen(", "proc_open(", "pcntl_exec(", "exec(", "system ("],
        r#"(?:^|[^\w.])(?:system|passthru|shell_exec|popen|proc_open|pcntl_exec|exec)\s?\(\s*['"$@]"#,
        "call that runs a command",
    ),
    rule(
        Cmdi,
        75,
        WEB,
        &["cmd.exe", "cmd /", "cmd+/", "powershell", "pwsh", "invoke-", "certutil", "bitsadmin", "mshta", "wscript", "rundll32", "regsvr32"],
        r#"\bcmd(?:\.exe)?\s+/[ckq]\b|\bpowershell(?:\.exe)?\s+(?:-|/|[a-z]:|get-|invoke|"|\()|\binvoke-(?:expression|webrequest|command|item|mimikatz|shellcode)|\bcertutil\b.*-(?:urlcache|decode)|bitsadmin\b.{0,20}/transfer|\bmshta\s+(?:http|vbscript|javascript)|\b(?:rundll32|regsvr32)(?:\.exe)?\s+\S"#,
        "Windows command in a request",
    ),
    rule(
        Cmdi,
        88,
        Places::COMMAND,
        &["downloadstring", "downloadfile", "invoke-expression", "iex", "-urlcache", "scrobj.dll", "invoke-mimikatz", "mimikatz", "sekurlsa", "vbscript:", "javascript:"],
        r"(?:iex|invoke-expression)\b.*(?:download|webclient|http)|(?:download(?:string|file|data)\s*\().*(?:iex|invoke|start-process|http)|certutil\b.*-urlcache|scrobj\.dll|invoke-mimikatz|\bmimikatz|sekurlsa::|mshta(?:\.exe)?\W{1,3}(?:http|vbscript|javascript)|rundll32(?:\.exe)?\s+javascript:",
        "living-off-the-land download or execution",
    ),
    rule(
        Cmdi,
        70,
        WEB,
        &["for /", "for %", "if exist", "if not", "if /i", "errorlevel", "cmdextversion", " in ("],
        r"\bfor\s(?:/[dflr]\s[^\n]*)?%{1,2}[^\s]\sin\s?\(|\bif\s(?:/i\s)?(?:not\s)?(?:exist\s+\S|defined\s+\S|errorlevel\s+\d|cmdextversion\s+\d)",
        "batch control structure",
    ),
    rule(
        Cmdi,
        72,
        SENT,
        &["chmod ", "whoami", "uname -", "wget ", "curl ", "bash -c", "sh -c", "python -c", "perl -e", "php -r", "ruby -e", "nslookup ", "ifconfig", "ipconfig", "netstat", "systeminfo", "/bin/sh", "/bin/bash", "nohup "],
        r"(?:^|[=\s;|&])(?:chmod\s+[+\d]|whoami\b|uname\s+-|wget\s+(?:-|http)|curl\s+(?:-\w|http|\w+\.\w)|(?:ba|z|k)?sh\s+-c|python[23]?\s+-c|perl\s+-e|php\s+-r|ruby\s+-e|nslookup\s+\S|ifconfig\b|ipconfig\b|netstat\b|systeminfo\b|nohup\s)|/bin/(?:ba)?sh\b",
        "command as a value",
    ),
    rule(
        Cmdi,
        85,
        WEB,
        &[":|:", "|"],
        r"\b?[\w:]{1,20}\s?\(\)\s?\{\s?[\w:]{1,20}(?:\(\))?\s?[|&]",
        "fork bomb",
    ),
];
