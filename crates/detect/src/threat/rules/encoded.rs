//! Encoded payloads: the first bytes of known formats in Base64, and commands that decode and run.
//! What the normaliser counts (layers and needless escapes) is judged in [`super::super::matcher`].

use super::{Places, Rule, rule};
use crate::threat::Class::Encoded;

const ANY: Places = Places::ANY;
const WEB: Places = Places::WEB;

pub(super) const RULES: &[Rule] = &[
    rule(
        Encoded,
        88,
        ANY,
        &["powershell", "pwsh", " -enc", " -e "],
        r#"(?:powershell|pwsh)(?:\.exe)?["']?\s[^\n]*[-/]e(?:n|nc|nco|ncod\w*|c)?\s+["']?[a-z0-9 /=]{20,}"#,
        "encoded PowerShell command",
    ),
    rule(
        Encoded,
        82,
        ANY,
        &[
            "frombase64string",
            "base64 -d",
            "base64 --decode",
            "certutil -decode",
            "b64decode",
            "base64.decode",
            "-join[char",
            "[char[]]",
            "openssl base64",
            "xxd -r",
        ],
        r"frombase64string\s?\(|base64\s+(?:-d|--decode|-di)\b[^\n]*\||\|\s?base64\s+(?:-d|--decode)|b64decode\s?\(|base64\.decode|openssl\s+base64\s+-d|xxd\s+-r",
        "decoding of Base64 before use",
    ),
    rule(
        Encoded,
        80,
        ANY,
        &[
            "tvqqaa",
            "tvpqaa",
            "tvrqaa",
            "ro0ab",
            "kztaau",
            "cs7qaf",
            "phnjcmlwd",
            "pd9waha",
            "l2jpbi9",
            "l2v0yy9wyxnzd2",
            "ywxlcnqo",
            "amf2yxnjcmlwd",
            "sqbfafg",
            "jabzac",
            "aqbpaf",
            "zxzhbc",
            "phnjcmlwdd",
        ],
        r"tv[pqr]qaa|\bro0ab|\bkztaau|\bcs7qaf|phnjcmlwd|pd9waha|l2jpbi9|l2v0yy9wyxnzd2|ywxlcnqo|amf2yxnjcmlwd|sqbfafg|jabzac|zxzhbc[hg]",
        "Base64 of a program, serialised object or script",
    ),
    rule(
        Encoded,
        62,
        WEB,
        &["base64,", ";base64"],
        r"data:[\w/+.-]{0,40};?\s?base64,\s?[a-z0-9 /=]{16,}",
        "Base64 data URL",
    ),
];
