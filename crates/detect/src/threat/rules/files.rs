//! Path traversal and the files that it is after.

use super::{Places, Rule, rule};
use crate::threat::Class::PathTraversal;

const ANY: Places = Places::ANY;
const WEB: Places = Places::WEB;
const REQUEST: Places = Places::REQUEST;

pub(super) const RULES: &[Rule] = &[
    rule(
        PathTraversal,
        88,
        WEB,
        &["../", "..\\"],
        r"(?:\.\.[/\\]+(?:\.[/\\]+)*){2}|^[/\\]+\.\.[/\\]|[/\\]{2,}\.\.[/\\]|\.\.[/\\].*(?:etc/|windows|winnt|boot\.ini|web-inf|passwd)",
        "steps up the directory tree",
    ),
    rule(
        PathTraversal,
        65,
        REQUEST,
        &["../", "..\\"],
        r"(?:[/=\\]|^)\.\.[/\\]",
        "step up the directory tree",
    ),
    rule(PathTraversal, 85, WEB, &["..;/", "..;\\"], "", "step up hidden by a path parameter"),
    rule(
        PathTraversal,
        80,
        WEB,
        &[".../", "...\\", "/...", "\\...", "//..", "\\\\.."],
        r"\.{3,}[/\\]+\.{2,}|(?:[/\\]|^)\.{3,}[/\\]|[/\\]\.{4,}|[/\\]\.{3,}[^.\s\w]|^[/\\]+\.\.+[^.\s\w]|[/\\]{2,}\.\.",
        "steps up with doubled dots",
    ),
    rule(
        PathTraversal,
        75,
        WEB,
        &["/./", "\\.\\"],
        r"(?:[/\\]+\.){3}|^/\./",
        "repeated current directory",
    ),
    rule(
        PathTraversal,
        88,
        WEB,
        &["0x2e", "0x2f", "0x5c", "x2e"],
        r"(?:0?x2e){2}|(?:\.\.|0?x2e)0x(?:2f|5c)",
        "dots and slashes in hexadecimal",
    ),
    rule(
        PathTraversal,
        82,
        WEB,
        &["etc/passwd", "etc/shadow", "etc/group", "etc/issue", "etc/sudoers", "etcpasswd", "etc\\passwd", "etcshadow"],
        r"(?:\.[/\\]*|^[/\\]*|[=:;'`(\s][/\\]+|//)etc[/\\]?(?:passwd|shadow|group|issue|sudoers)\b",
        "system file",
    ),
    rule(
        PathTraversal,
        80,
        REQUEST,
        &["etc/hosts", "etc/motd", "etc/fstab", "etc/mysql", "etc/apache", "etc/nginx", "etc/httpd", "etc/ssh", "etc/crontab", "etc/resolv"],
        r"(?:\.[/\\]*|^[/\\]*|[=:;'`(\s][/\\]+|//)etc[/\\]?(?:hosts|motd|fstab|mysql|apache|nginx|httpd|ssh|crontab|resolv)",
        "configuration of a system",
    ),
    rule(
        PathTraversal,
        80,
        WEB,
        &["boot.ini", "win.ini", "system.ini", "web-inf", "global.asa", "inetpub", "wwwroot", "system32/config", "system32\\config", "windows/repair", "/proc/self", "proc/version", "proc/cpuinfo", "meta-inf", "web.xml", "bootini", "proc/interrupts", "config/sam", "/winnt/", "\\winnt\\", "applicationhost.config"],
        r"\b(?:boot\.?ini|win\.ini|system\.ini)\b|\bweb-inf|meta-inf/|\bglobal\.asax?|inetpub[/\\]|system32[/\\]config[/\\]sam|windows[/\\]repair|/proc/self/(?:environ|cmdline|maps|fd|status)|^/?proc/(?:version|cpuinfo|interrupts|mounts)|[=./]proc/(?:version|cpuinfo|self)|^/?web\.xml|[/\\]winnt[/\\]|applicationhost\.config",
        "file of a server or system",
    ),
    rule(
        PathTraversal,
        70,
        REQUEST,
        &[".bash_history", ".htaccess", ".htpasswd", "id_rsa", ".ssh/", "authorized_keys", "/var/log/", "wp-config.php", "access.log", "error.log", "/proc/", "/sys/class", "debug.log", "errors.log", ".aws/", "web.config", "config.inc.php", "php.ini", "my.cnf", "/@fs/", "/@id/"],
        "",
        "private file",
    ),
    rule(
        PathTraversal,
        85,
        ANY,
        &[".\u{0}."],
        "",
        "dots separated by NUL",
    ),
    rule(
        PathTraversal,
        75,
        WEB,
        &["file:/"],
        r"(?:^|[=:\s'(])file:/{1,3}(?:[a-z]:|etc|boot|windows|proc|\w)",
        "file URL",
    ),
    rule(
        PathTraversal,
        65,
        WEB,
        &["////", "///"],
        r"^/{3,}[^\s/]|[^:/]/{4,}\w",
        "repeated slashes",
    ),
];
