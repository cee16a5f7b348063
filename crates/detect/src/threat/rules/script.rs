//! Cross-site scripting: elements that run script, event handlers, script URLs, and the calls that
//! prove or use an injection.

use super::{Places, Rule, rule};
use crate::threat::Class::Xss;

const ANY: Places = Places::ANY;
const WEB: Places = Places::WEB;
const REQUEST: Places = Places::REQUEST;

pub(super) const RULES: &[Rule] = &[
    rule(Xss, 95, ANY, &["script"], r"<[\s/\\]*(?:\w+:)?script(?:[^\w-]|$)", "script element"),
    rule(
        Xss,
        85,
        WEB,
        &[
            "onabort", "onafter", "onanimation", "onauxclick", "onbefore", "onbegin", "onblur",
            "onbounce", "oncanplay", "onchange", "onclick", "onclose", "oncontext", "oncontrol",
            "oncopy", "oncuechange", "oncut", "ondata", "ondblclick", "ondeactivate", "ondrag",
            "ondrop", "onduration", "onemptied", "onend", "onerror", "onfilter", "onfinish",
            "onfocus", "onformdata", "ongotpointer", "onhashchange", "onhelp", "oninput",
            "oninvalid", "onkey", "onlayout", "onload", "onlose", "onlostpointer", "onmessage",
            "onmouse", "onmove", "onoffline", "ononline", "onoutofsync", "onpage", "onpaste",
            "onpause", "onplay", "onpointer", "onpopstate", "onprogress", "onproperty",
            "onratechange", "onreadystate", "onrepeat", "onreset", "onresize", "onresume",
            "onreverse", "onrow", "onscroll", "onsearch", "onseek", "onselect", "onshow",
            "onslotchange", "onstalled", "onstart", "onstop", "onstorage", "onsubmit",
            "onsuspend", "onsynchrestored", "ontimeupdate", "ontoggle", "ontouch", "ontrackchange",
            "ontransition", "onunload", "onurlflip", "onvolume", "onwaiting", "onwebkit", "onwheel",
        ],
        r#"(?:[\s"'`/\\>;,(]|^)on[a-z]{3,24}[^\w=]*=\s*[^\s=&]"#,
        "event handler attribute",
    ),
    rule(
        Xss,
        85,
        WEB,
        &["script:", "script :", "ascript", "vascript", "avascript", "mocha:", "script\n:"],
        r"(?:j\s*a\s*v\s*a|v\s*b|live|j)\s*s\s*c\s*r\s*i\s*p\s*t\s*:\s{0,2}[^\s]|\bmocha:",
        "script URL",
    ),
    rule(
        Xss,
        85,
        WEB,
        &[
            "<iframe", "<object", "<embed", "<applet", "<svg", "<math", "<frameset", "<layer",
            "<ilayer", "<bgsound", "<isindex", "<base", "<meta", "<import", "<v:", "<marquee",
            "<xss", "<animate", "<noembed", "<foreignobject", "<vmlframe", "<portal", "<keygen",
        ],
        r"<\s*(?:i?frame(?:set)?|object|embed|applet|svg|math|i?layer|bgsound|isindex|base\s|meta\s|import|v:|marquee|xss|animate|noembed|foreignobject|vmlframe|portal|keygen)",
        "element that loads or runs content",
    ),
    rule(
        Xss,
        70,
        WEB,
        &[
            "<img", "<image", "<video", "<audio", "<body", "<html", "<style", "<link", "<input",
            "<form", "<table", "<td", "<div", "<button", "<details", "<select", "<textarea",
            "<frame", "<br", "<xml", "<a ", "<source", "<title", "<template", "<span", "<p ", "<b ",
            "<head", "<plaintext", "<noscript", "<h1", "<font", "<li ", "<ul", "<label",
        ],
        r"<\s*(?:img|image|video|audio|body|html|style|link|input|form|table|td|div|button|details|select|textarea|frame|br|xml|a|source|title|template|span|p|b|head|plaintext|noscript|h1|font|li|ul|label)\b[\s/]*[^>]*(?:=|>\s*<|\bautofocus\b|javascript|/?>.*(?:script|alert|cookie))",
        "markup with attributes",
    ),
    rule(
        Xss,
        60,
        REQUEST,
        &["<"],
        r#"<\s*[/!?]?\s*[a-z][a-z0-9:]{0,14}(?:[\s/>]|$)|["'`]\s*/?>\s*<?|-->|<!--|<!\[cdata|<\?"#,
        "markup in a request",
    ),
    rule(
        Xss,
        75,
        WEB,
        &["<!--", "<![cdata", "<?import", "<?xml", "<!doctype", "-->", "<noalert"],
        r"<!\[cdata\[|<\?import|<\?xml:namespace|<!--.*(?:script|alert|<img)|<noalert",
        "markup that hides content",
    ),
    rule(
        Xss,
        80,
        WEB,
        &["alert", "confirm", "prompt"],
        r#"(?:^|[^\w.])(?:alert|confirm|prompt)\s*[(`]\s*(?:[\d'"`/]|xss|document|window|self|top|this|string|unescape|\)|\w+\s*\)\s*[;<>"'])|\[\s*['"](?:alert|eval|confirm)['"]\s*\]|['"](?:alert|eval|confirm)\s*\(|(?:=|\$)\s*alert\b|top\[|(?:window|self|top|this|parent)\s*(?:\.|\[).{0,20}alert"#,
        "script call that shows an injection",
    ),
    rule(
        Xss,
        85,
        WEB,
        &[
            "document.", "document[", "document .", "document)", "fromcharcode", "window.location",
            "window.name", "window.open", ".innerhtml", ".outerhtml", ".createelement",
            "location.href", "location.hash", "location=", "settimeout", "setinterval", "atob(",
            "unescape(", "decodeuri", "eval(", "srcdoc", ".textcontent", ".appendchild",
            ".constructor", "xmlhttprequest", "localstorage", "sessionstorage", "importscripts",
            "\"cookie\"", "'cookie'", "\"document\"", "navigator.sendbeacon",
        ],
        r#"\bdocument\W{0,4}\s*(?:\.|\[)\s*["'/]{0,2}(?:cookie|write|domain|location|body|url|referrer|createelement|documentelement|getelement|forms|queryselector)|fromcharcode|window\.(?:location|name|open)|\.(?:inner|outer)html|\.createelement|location\.(?:href|hash)\s*[=.)]|\bset(?:timeout|interval)\s*\(|\batob\s*\(|\bunescape\s*\(|decodeuri(?:component)?\s*\(|(?:^|[^\w.])eval\s*\(|srcdoc\s*=|\.appendchild\s*\(|\.constructor\W{1,4}(?:constructor|_|prototype|\()|xmlhttprequest|\b(?:local|session)storage\s*[.\[]|importscripts\s*\(|\[\s*["'](?:cookie|document)["']\s*\]"#,
        "script that touches the page",
    ),
    rule(
        Xss,
        85,
        WEB,
        &["ession(", "ession (", "-moz-binding", "behavior:", "behaviour:", "@import", "@i"],
        r#"e ?x ?p ?r ?e ?s ?s ?i ?o ?n ?\(\s*[^)]|-moz-binding|behaviou?r\s*:\s*url|@\\?i\\?m\\?p\\?o\\?r\\?t\s*['"(u]"#,
        "style that runs script",
    ),
    rule(
        Xss,
        80,
        WEB,
        &["data:text/html", "data:image/svg", "data:text/javascript", "data:application/x", "data:,", "formaction", "xlink:href", "style="],
        r#"data:(?:text/(?:html|javascript)|image/svg\+?\s?xml|application/x(?:html|-javascript))|src\s*=\s*["']?data:|formaction\s*=|xlink:href\s*=|style\s*=\s*["']?[^"']*(?:url\s*\(\s*["']?\s*(?:javascript|data)|expression|binding)"#,
        "data or form URL that runs script",
    ),
    rule(
        Xss,
        65,
        WEB,
        &["&{", "<<", "\"><", "'><", "\">'", "\"=&{"],
        r#"&\{[^}]*[;}(]|<<+[a-z]|["']\s*>\s*<\s*[a-z/!]|^\s*["']?>["']"#,
        "attribute value that is ended to begin markup",
    ),
    rule(
        Xss,
        75,
        ANY,
        &["adw-", "ad4-", "acia-"],
        r"\badw-.*ad4-|\badw-(?:script|img|svg|iframe)|adw-/script",
        "markup in UTF-7",
    ),
    rule(
        Xss,
        75,
        WEB,
        &["!+[]", "[]+[]", "(![]", "![] []", "[][", "[] ["],
        r"(?:\[\]|!\s?\[\]|!!\[\])(?:\s?\[\s?|\(\s?|[\s!]){2,}.{0,10}(?:\[\]|!\[\])",
        "script written without letters",
    ),
];
