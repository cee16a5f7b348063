//! How events are written: the shapes in which real products send them.
//!
//! * StreamGuard's model: `event_id`, `timestamp` (ms), `event_type`, `source_ip`, `status`, `metadata`;
//! * a web server's access line as JSON: `remote_addr`, `url`, `status`, `user_agent`;
//! * a Windows logon as an agent ships it: `EventID`, `Computer`, `TargetUserName`, `IpAddress`;
//! * `sshd` as an ECS document with the syslog text in `message`.

use std::io::Write;

/// Who causes a record, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actor<'a> {
    /// Empty where nobody is logged in.
    pub(super) user: &'a str,
    pub(super) address: u32,
    /// Empty where it is not known.
    pub(super) city: &'a str,
    pub(super) agent: u16,
    /// The number of the host that reports.
    pub(super) host: u32,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// A log-in at an application.
    Login { ok: bool },
    /// A file is read or written.
    File { number: u32, write: bool, sensitive: bool },
    /// A program is started.
    Process { number: u32 },
    /// A connection.
    Connection { to: u32, port: u16, bytes: u64 },
    /// A name is looked up; `generated` names look random.
    Dns { number: u32 },
    /// An application's own audit event, by its place in [`AUDITS`].
    Audit { kind: u8, ok: bool },
    /// A web request, to a page or, as its text says, elsewhere.
    Web { page: u32, status: u16, bytes: u32 },
    /// A web request with a text of its own.
    Probe { url: &'static str, status: u16 },
    /// A Windows logon.
    Logon { ok: bool, kind: u8 },
    /// A log-in with `sshd`; `unknown` users do not exist.
    Ssh { ok: bool, unknown: bool },
}

/// Audit events of applications. The last four are for administrators.
pub(super) const AUDITS: [&str; 10] = [
    "mail_send",
    "document_share",
    "report_export",
    "ticket_update",
    "mailbox_rule",
    "mfa_change",
    "role_change",
    "group_add",
    "account_create",
    "policy_change",
];

pub(super) const AGENTS: [&str; 14] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:123.0) Gecko/20100101 Firefox/123.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_3) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.3 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:123.0) Gecko/20100101 Firefox/123.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Safari/537.36 Edg/121.0.0.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 13; SM-G991B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPad; CPU OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "python-requests/2.31.0",
    "Go-http-client/2.0",
    "curl/8.5.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
];

const FOLDERS: [&str; 12] = [
    "finance",
    "hr",
    "projects",
    "sales",
    "legal",
    "marketing",
    "shared",
    "templates",
    "reports",
    "contracts",
    "support",
    "archive",
];
const SENSITIVE: [&str; 6] = [
    "/etc/shadow",
    "/srv/hr/salaries-2024.xlsx",
    "/var/backups/domain-controller.vhd",
    "/srv/finance/bank-access.kdbx",
    "/srv/legal/merger-draft.docx",
    "C:\\Windows\\NTDS\\ntds.dit",
];
const PROGRAMS: [&str; 16] = [
    "chrome.exe",
    "outlook.exe",
    "excel.exe",
    "winword.exe",
    "teams.exe",
    "code.exe",
    "git",
    "cargo",
    "python3",
    "node",
    "bash",
    "ssh",
    "docker",
    "java",
    "powershell.exe",
    "explorer.exe",
];
const NAMES: [&str; 16] = [
    "www.example.com",
    "mail.corp.example",
    "git.corp.example",
    "wiki.corp.example",
    "cdn.example.net",
    "api.example.org",
    "updates.example.com",
    "time.example.net",
    "files.corp.example",
    "chat.corp.example",
    "crm.corp.example",
    "ads.example.net",
    "maps.example.org",
    "news.example.com",
    "video.example.net",
    "pkg.example.org",
];
const PAGES: [&str; 12] = [
    "/",
    "/login",
    "/products?page=",
    "/products/",
    "/cart",
    "/api/v2/orders/",
    "/api/v2/users/me",
    "/static/app.",
    "/img/",
    "/search?q=office+chair+",
    "/blog/2024/03/",
    "/help/article?id=",
];

/// Writes records, each as one line of JSON.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The second that `stamp` is of, and its text `2024-03-04T09:15:02`.
    second: i64,
    stamp: String,
    /// Records written so far: part of the next record's id.
    pub(super) sequence: u64,
}

impl Writer {
    /// Writes a record at a time (microseconds since the epoch).
    pub(super) fn write(&mut self, time: i64, actor: &Actor<'_>, act: &Act, out: &mut Vec<u8>) {
        let second = time.div_euclid(1_000_000);
        if second != self.second || self.stamp.is_empty() {
            self.second = second;
            self.stamp = stamp(second);
        }
        let millis = time.div_euclid(1000);
        let mut line = Line { out, digits: itoa::Buffer::new() };
        line.text("{\"event_id\":\"");
        line.id(second, self.sequence);
        self.sequence += 1;
        let milli = (millis % 1000) as u16;
        match *act {
            Act::Logon { ok, kind } => line.windows(&self.stamp, milli, actor, ok, kind),
            Act::Ssh { ok, unknown } => line.ssh(&self.stamp, milli, actor, ok, unknown, time),
            Act::Web { page, status, bytes } => {
                line.web_head(&self.stamp, milli, actor);
                line.page(page);
                line.web_tail(actor, status, bytes);
            }
            Act::Probe { url, status } => {
                line.web_head(&self.stamp, milli, actor);
                line.text(url);
                line.web_tail(actor, status, 150);
            }
            _ => line.streamguard(millis, actor, act),
        }
        line.text("}\n");
    }
}

/// `evt_<seconds>_<n>`, as StreamGuard writes ids.
pub(super) fn event_id(time: i64, sequence: u64) -> String {
    format!("evt_{}_{sequence}", time.div_euclid(1_000_000))
}

/// RFC 3339 without fraction and zone.
fn stamp(second: i64) -> String {
    let (days, of_day) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    // Days to civil date, proleptic Gregorian, by eras of 400 years beginning on 1 March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    digits: itoa::Buffer,
}

impl Line<'_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.out.extend_from_slice(self.digits.format(number).as_bytes());
    }

    /// A text as part of a JSON string.
    fn escaped(&mut self, text: &str) {
        for byte in text.bytes() {
            if matches!(byte, b'"' | b'\\') {
                self.out.push(b'\\');
            }
            self.out.push(byte);
        }
    }

    fn id(&mut self, second: i64, sequence: u64) {
        self.text("evt_");
        self.number(second);
        self.text("_");
        self.number(sequence);
        self.text("\"");
    }

    fn address(&mut self, address: u32) {
        let [a, b, c, d] = address.to_be_bytes();
        for (part, after) in [(a, "."), (b, "."), (c, "."), (d, "")] {
            self.number(part);
            self.text(after);
        }
    }

    fn milli(&mut self, stamp: &str, milli: u16) {
        self.text(stamp);
        self.text(".");
        let digits = [milli / 100, milli / 10 % 10, milli % 10].map(|digit| b'0' + digit as u8);
        self.out.extend_from_slice(&digits);
        self.text("Z\"");
    }

    fn host(&mut self, host: u32) {
        let kind = ["srv-", "web-", "ws-", "ws-", "ws-"];
        self.text(kind.get(host as usize % kind.len()).copied().unwrap_or("ws-"));
        let digits = [host / 100 % 10, host / 10 % 10, host % 10].map(|digit| b'0' + digit as u8);
        self.out.extend_from_slice(&digits);
    }

    fn streamguard(&mut self, millis: i64, actor: &Actor<'_>, act: &Act) {
        self.text(",\"timestamp\":");
        self.number(millis);
        let (kind, ok) = match *act {
            Act::Login { ok } => ("auth_attempt", ok),
            Act::File { .. } => ("file_access", true),
            Act::Process { .. } => ("process_execution", true),
            Act::Connection { .. } => ("network_connection", true),
            Act::Audit { kind, ok } => {
                (AUDITS.get(usize::from(kind)).copied().unwrap_or("audit"), ok)
            }
            _ => ("dns_query", true),
        };
        self.text(",\"event_type\":\"");
        self.text(kind);
        self.text("\",\"source_ip\":\"");
        self.address(actor.address);
        if let Act::Connection { to, .. } = *act {
            self.text("\",\"destination_ip\":\"");
            self.address(to);
        }
        if !actor.user.is_empty() {
            self.text("\",\"user\":\"");
            self.text(actor.user);
        }
        self.text("\",\"host\":\"");
        self.host(actor.host);
        self.text(if ok { "\",\"status\":\"success\"" } else { "\",\"status\":\"failed\"" });
        self.text(",\"threat_score\":0.0");
        self.number(millis as u64 % 9 + 1);
        self.text(",\"metadata\":{");
        self.detail(act, actor);
        if !actor.city.is_empty() {
            self.text("\"geo_location\":\"");
            self.text(actor.city);
            self.text("\"}");
        } else if self.out.last() == Some(&b',') {
            self.out.pop();
            self.text("}");
        } else {
            self.text("}");
        }
    }

    fn detail(&mut self, act: &Act, actor: &Actor<'_>) {
        match *act {
            Act::File { number, write, sensitive } => {
                self.text("\"file_path\":\"");
                if sensitive {
                    let path = SENSITIVE.get(number as usize % SENSITIVE.len()).copied();
                    self.escaped(path.unwrap_or_default());
                } else {
                    self.text("/srv/");
                    self.text(
                        FOLDERS.get(number as usize % FOLDERS.len()).copied().unwrap_or_default(),
                    );
                    self.text("/document-");
                    self.number(number);
                    self.text(".docx");
                }
                self.text(if write {
                    "\",\"operation\":\"write\","
                } else {
                    "\",\"operation\":\"read\","
                });
            }
            Act::Process { number } => {
                self.text("\"process_name\":\"");
                self.text(
                    PROGRAMS.get(number as usize % PROGRAMS.len()).copied().unwrap_or_default(),
                );
                self.text("\",\"pid\":");
                self.number(1000 + number % 30_000);
                self.text(",");
            }
            Act::Connection { port, bytes, .. } => {
                self.text("\"port\":");
                self.number(port);
                self.text(",\"protocol\":\"TCP\",\"bytes_transferred\":");
                self.number(bytes);
                self.text(",");
            }
            Act::Dns { number } => {
                self.text("\"domain\":\"");
                if number % 11 == 0 {
                    self.text("e");
                    self.number(number);
                    self.text(".");
                }
                self.text(NAMES.get(number as usize % NAMES.len()).copied().unwrap_or_default());
                self.text("\",");
            }
            _ => {
                self.text("\"user_agent\":\"");
                self.text(agent(actor.agent));
                self.text("\",");
            }
        }
    }

    fn web_head(&mut self, stamp: &str, milli: u16, actor: &Actor<'_>) {
        self.text(",\"time\":\"");
        self.milli(stamp, milli);
        self.text(",\"type\":\"http_request\",\"remote_addr\":\"");
        self.address(actor.address);
        if !actor.user.is_empty() {
            self.text("\",\"user\":\"");
            self.text(actor.user);
        }
        if !actor.city.is_empty() {
            self.text("\",\"location\":\"");
            self.text(actor.city);
        }
        self.text("\",\"host\":\"web-0");
        self.number(actor.host % 8 + 1);
        self.text("\",\"request_method\":\"GET\",\"url\":\"");
    }

    fn page(&mut self, page: u32) {
        let text = PAGES.get(page as usize % PAGES.len()).copied().unwrap_or("/");
        self.text(text);
        if matches!(page as usize % PAGES.len(), 2 | 3 | 5 | 8..) {
            self.number(page / 12 % 5000);
        } else if page as usize % PAGES.len() == 7 {
            self.number(page / 12 % 40);
            self.text(".js");
        }
    }

    fn web_tail(&mut self, actor: &Actor<'_>, status: u16, bytes: u32) {
        self.text("\",\"status\":");
        self.number(status);
        self.text(",\"body_bytes_sent\":");
        self.number(bytes);
        self.text(",\"user_agent\":\"");
        self.text(agent(actor.agent));
        self.text("\"");
    }

    fn windows(&mut self, stamp: &str, milli: u16, actor: &Actor<'_>, ok: bool, kind: u8) {
        self.text(",\"TimeCreated\":\"");
        self.milli(stamp, milli);
        self.text(if ok {
            ",\"Channel\":\"Security\",\"EventID\":4624,\"event_type\":\"logon\",\"outcome\":\"success\""
        } else {
            ",\"Channel\":\"Security\",\"EventID\":4625,\"event_type\":\"logon\",\"outcome\":\"failure\",\"SubStatus\":\"0xc000006a\""
        });
        self.text(",\"Computer\":\"");
        self.host(actor.host);
        self.text(".corp.example\",\"TargetDomainName\":\"CORP\",\"TargetUserName\":\"");
        self.text(actor.user);
        self.text("\",\"LogonType\":");
        self.number(kind);
        self.text(",\"IpAddress\":\"");
        self.address(actor.address);
        self.text("\"");
    }

    fn ssh(
        &mut self,
        stamp: &str,
        milli: u16,
        actor: &Actor<'_>,
        ok: bool,
        unknown: bool,
        time: i64,
    ) {
        self.text(",\"@timestamp\":\"");
        self.milli(stamp, milli);
        self.text(",\"host\":{\"name\":\"");
        self.host(actor.host / 5 * 5);
        self.text("\"},\"process\":{\"name\":\"sshd\",\"pid\":");
        self.number(time as u64 / 1000 % 30_000 + 600);
        self.text("},\"event\":{\"action\":\"ssh_login\",\"outcome\":\"");
        self.text(if ok { "success" } else { "failure" });
        self.text("\"},\"user\":{\"name\":\"");
        self.text(actor.user);
        self.text("\"},\"source\":{\"ip\":\"");
        self.address(actor.address);
        self.text(if ok {
            "\"},\"message\":\"Accepted publickey for "
        } else {
            "\"},\"message\":\"Failed password for "
        });
        self.text(if unknown { "invalid user " } else { "" });
        self.text(actor.user);
        self.text(" from ");
        self.address(actor.address);
        self.text(" port ");
        self.number(time as u64 / 777 % 28_000 + 32_768);
        self.text(" ssh2\"");
    }
}

/// The text of an IPv4 address.
pub(super) fn address_text(address: u32) -> String {
    let mut out = Vec::new();
    let [a, b, c, d] = address.to_be_bytes();
    // Writing to a vector cannot fail.
    let _ = write!(out, "{a}.{b}.{c}.{d}");
    String::from_utf8(out).unwrap_or_default()
}

fn agent(index: u16) -> &'static str {
    AGENTS.get(usize::from(index)).copied().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_709_555_702, "2024-03-04T12:35:02"),
            (4_102_444_799, "2099-12-31T23:59:59"),
        ] {
            assert_eq!(stamp(second), text);
        }
    }
}
