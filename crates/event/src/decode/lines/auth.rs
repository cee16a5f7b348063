//! The well-known messages of sshd, PAM, sudo, su and login: who, from where, and whether it worked.
//!
//! Detection needs user and address, and these programs write them into sentences. This is a bounded,
//! hand-written reader of those sentences; every other message gives nothing. It takes text that a
//! remote attacker chooses in part (user names), so where a sentence holds several addresses the one
//! counts that stands where the program writes its own: the first `from A port N` that ends the
//! sentence or is followed by a colon, which is also what fail2ban's cases expect.
//!
//! | `type` | `outcome` | messages |
//! |---|---|---|
//! | `login` | success, failure | sshd `Accepted`, `Failed`, `error: PAM: …`, `ROOT LOGIN REFUSED`; login's `FAILED LOGIN` |
//! | `login_invalid_user` | failure | sshd `Invalid user`, `Illegal user`, `input_userauth_request: invalid user` |
//! | `login_denied` | failure | sshd `User … not allowed because`, `refused connect` |
//! | `login_limit` | failure | sshd `maximum authentication attempts exceeded`, `Too many authentication failures` |
//! | `pam_authentication` | failure | PAM `authentication failure`, `check pass; user unknown`, `PAM n more authentication failures` |
//! | `session_opened`, `session_closed` | success | PAM, systemd-logind, sshd's `Close session` |
//! | `sudo`, `su` | success, failure | sudo's and su's own lines; the other user is `auth.target_user` |
//! | `disconnect` | failure before authentication, else none | sshd `Connection closed`, `Disconnected from`, `Received disconnect`, … |
//! | `connect` | none | sshd `Connection from` |
//! | `probe` | failure | sshd `Did not receive identification`, `Bad protocol version`, `Unable to negotiate`, `Magic value check failed`, … |
//! | `reverse_mapping` | none | sshd `reverse mapping checking … failed`, `Address … maps to` |

use std::net::IpAddr;

/// What a message tells. Texts that live as long as the message are slices of it; empty when it says
/// nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extract<'a> {
    /// The column `type`.
    pub kind: &'static str,
    /// `success`, `failure`, or none.
    pub outcome: Option<&'static str>,
    /// Who.
    pub user: &'a str,
    /// The sender's address.
    pub address: &'a str,
    /// The sender's host name where no address is written.
    pub remote_host: &'a str,
    /// The sender's port.
    pub port: Option<u16>,
    /// How they authenticated: `password`, `publickey`, …
    pub method: &'a str,
    /// The user that somebody became or tried to become.
    pub target_user: &'a str,
    /// The command that sudo ran or refused.
    pub command: &'a str,
    /// The user where the sentence does not write it but means it: `ROOT LOGIN …`.
    pub implied_user: &'static str,
    /// The method where the sentence does not write it.
    pub implied_method: &'static str,
    /// The program says that this happened so many times.
    pub repeated: Option<u32>,
}

const SUCCESS: Option<&str> = Some("success");
const FAILURE: Option<&str> = Some("failure");

/// Whether a program writes the messages that are read here. PAM's modules speak for any program.
#[must_use]
pub fn is_known(program: &str) -> bool {
    const PROGRAMS: [&str; 9] = [
        "sshd",
        "sshd-session",
        "sshd-auth",
        "sudo",
        "su",
        "runuser",
        "login",
        "remote",
        "systemd-logind",
    ];
    PROGRAMS.contains(&base(program).0)
}

/// The name of a program without its path, and what stands in parentheses behind it.
fn base(program: &str) -> (&str, &str) {
    let (program, module) = program.split_once('(').unwrap_or((program, ""));
    (program.rsplit('/').next().unwrap_or_default().trim_matches(['[', ']']), module)
}

/// Reads a message of a program. The program is the tag or app name; its path and what stands in
/// parentheses do not matter.
#[must_use]
pub fn extract<'a>(program: &str, message: &'a str) -> Option<Extract<'a>> {
    let (program, module) = base(program);
    let message = strip_solaris_id(message.trim());
    if let Some((times, inner)) = repeated(message) {
        let found = extract(program, inner)?;
        return Some(Extract { repeated: Some(times), ..found });
    }
    match program {
        "sshd" | "sshd-session" | "sshd-auth" => sshd(message),
        "sudo" => sudo(message),
        "su" | "runuser" => su(message),
        "login" | "remote" => login(message),
        "systemd-logind" => logind(message),
        _ => None,
    }
    .or_else(|| pam(message, !module.is_empty()))
}

/// Solaris puts `[ID 800047 auth.info] ` first.
fn strip_solaris_id(message: &str) -> &str {
    message
        .strip_prefix("[ID ")
        .and_then(|rest| rest.split_once("] "))
        .map_or(message, |(_, rest)| rest)
}

/// `message repeated 5 times: [ … ]`
fn repeated(message: &str) -> Option<(u32, &str)> {
    let (times, rest) = message.strip_prefix("message repeated ")?.split_once(" times: [")?;
    Some((times.parse().ok()?, rest.strip_suffix(']')?.trim()))
}

/// An address, or a host name, with brackets and zone removed.
#[derive(Clone, Copy, Default)]
struct Remote<'a> {
    address: &'a str,
    host: &'a str,
    port: Option<u16>,
}

fn remote(token: &str) -> Option<Remote<'_>> {
    let inner = token.trim_matches(['[', ']', '(', ')', ',']);
    let plain = inner.split('%').next().unwrap_or_default();
    if plain.parse::<IpAddr>().is_ok() || is_padded(plain) {
        return Some(Remote { address: inner, ..Remote::default() });
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = (1..=255).contains(&plain.len())
        && inner.len() == plain.len()
        && plain.bytes().all(fits)
        && plain.contains(|c: char| c.is_ascii_alphabetic());
    is_name.then_some(Remote { host: plain, ..Remote::default() })
}

/// An IPv4 address with leading zeros, as some programs write it.
fn is_padded(text: &str) -> bool {
    let octet = |part: &str| part.len() <= 3 && part.parse::<u8>().is_ok();
    text.split('.').count() == 4 && text.split('.').all(octet)
}

impl<'a> Extract<'a> {
    fn new(kind: &'static str, outcome: Option<&'static str>) -> Self {
        Self { kind, outcome, ..Self::default() }
    }

    fn user(self, user: &'a str) -> Self {
        Self { user: user.trim(), ..self }
    }

    fn remote(self, remote: Remote<'a>) -> Self {
        Self { address: remote.address, remote_host: remote.host, port: remote.port, ..self }
    }
}

/// Reads `A[ port N][ sshN]` and checks that the sentence may end there: the end, `:`, ` [preauth]`,
/// ` via `, ` on `, `, `.
fn endpoint(text: &str, hosts: bool) -> Option<(Remote<'_>, &str)> {
    let (token, mut rest) = match text.find(' ') {
        Some(at) => text.split_at_checked(at)?,
        None => (text, ""),
    };
    // `1.2.3.4: 11: Bye` ends at a colon that is not the address's own.
    let (token, colon) = match token.strip_suffix(':') {
        Some(inner) if remote(inner).is_some() => (inner, true),
        _ => (token, false),
    };
    let mut found = remote(token).filter(|found| hosts || !found.address.is_empty())?;
    if colon {
        return Some((found, rest));
    }
    if let Some(after) = rest.strip_prefix(" port ") {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = after.split_at_checked(digits)?;
        found.port = Some(number.parse().ok()?);
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(" ssh") {
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let ends = rest.trim().is_empty()
        || [":", " [preauth]", " via ", " on ", ",", " to ", " not allowed"]
            .iter()
            .any(|end| rest.starts_with(end));
    ends.then_some((found, rest))
}

/// The first endpoint behind `separator`: what stands before it, it, and what follows.
fn split_endpoint<'a>(
    text: &'a str,
    separator: &str,
    hosts: bool,
) -> Option<(&'a str, Remote<'a>, &'a str)> {
    let mut from = 0;
    // A message has a bounded length, and every step moves on.
    while let Some(at) = text.get(from..)?.find(separator) {
        let start = from + at;
        let after = start + separator.len();
        if let Some((remote, rest)) = endpoint(text.get(after..)?, hosts) {
            return Some((text.get(..start)?, remote, rest));
        }
        from = start + 1;
        while !text.is_char_boundary(from) {
            from += 1;
        }
    }
    None
}

fn strip_any<'a>(text: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| text.strip_prefix(prefix))
}

const INVALID: [&str; 2] = ["invalid user ", "illegal user "];

fn sshd(message: &str) -> Option<Extract<'_>> {
    let message = strip_any(message, &["error: ", "fatal: ", "info: "]).unwrap_or(message);
    sshd_login(message).or_else(|| sshd_refusal(message)).or_else(|| sshd_connection(message))
}

fn sshd_login(message: &str) -> Option<Extract<'_>> {
    for (verb, outcome) in [("Accepted ", SUCCESS), ("Failed ", FAILURE)] {
        if let Some(rest) = message.strip_prefix(verb) {
            let (method, rest) = rest.split_once(" for ")?;
            let rest = strip_any(rest, &INVALID).unwrap_or(rest);
            let (user, remote, _) = match rest.strip_prefix("from ") {
                // An empty user name leaves `for invalid user  from` or `for  from`.
                Some(inner) if endpoint(inner, true).is_some() => {
                    let (remote, rest) = endpoint(inner, true)?;
                    ("", remote, rest)
                }
                _ => split_endpoint(rest, " from ", true)?,
            };
            let found = Extract::new("login", outcome).user(user).remote(remote);
            return Some(Extract { method, ..found });
        }
    }
    if let Some(rest) = strip_any(message, &["Invalid user ", "Illegal user "]) {
        let kind = Extract::new("login_invalid_user", FAILURE);
        if let Some((user, remote, _)) = split_endpoint(rest, " from ", true) {
            return Some(kind.user(user).remote(remote));
        }
        return Some(kind.user(rest));
    }
    if let Some(rest) = message.strip_prefix("PAM: ") {
        let (what, rest) = rest.split_once(" for ")?;
        let lower = what.to_ascii_lowercase();
        if lower.contains("authentication") {
            let rest = strip_any(rest, &INVALID).unwrap_or(rest);
            let (user, remote, _) = split_endpoint(rest, " from ", true)?;
            let found = Extract::new("login", FAILURE).user(user).remote(remote);
            return Some(Extract { implied_method: "pam", ..found });
        }
        return None;
    }
    let rest = strip_any(message, &["ROOT LOGIN REFUSED FROM ", "Root login refused from "])?;
    let (remote, _) = endpoint(rest, true)?;
    Some(Extract { implied_user: "root", ..Extract::new("login", FAILURE).remote(remote) })
}

fn sshd_refusal(message: &str) -> Option<Extract<'_>> {
    if let Some(rest) = message.strip_prefix("User ") {
        let (who, _) = rest.rsplit_once(" not allowed because ")?;
        let kind = Extract::new("login_denied", FAILURE);
        return Some(match who.rsplit_once(" from ").and_then(|(u, a)| Some((u, remote(a)?))) {
            Some((user, remote)) => kind.user(user).remote(remote),
            None => kind.user(who),
        });
    }
    if let Some(rest) = message.strip_prefix("refused connect from ") {
        let kind = Extract::new("login_denied", FAILURE);
        let inner = rest.rsplit_once('(').and_then(|(_, inner)| remote(inner));
        return inner.or_else(|| endpoint(rest, true).map(|found| found.0)).map(|r| kind.remote(r));
    }
    if let Some(rest) = message.strip_prefix("maximum authentication attempts exceeded for ") {
        let rest = strip_any(rest, &INVALID).unwrap_or(rest);
        let (user, remote, _) = split_endpoint(rest, " from ", true)?;
        return Some(Extract::new("login_limit", FAILURE).user(user).remote(remote));
    }
    if let Some(rest) = message.strip_prefix("Disconnecting: Too many authentication failures") {
        let user = rest.strip_suffix(" [preauth]").unwrap_or(rest);
        let user = user.strip_prefix(" for ").unwrap_or_default();
        let user = strip_any(user, &INVALID).unwrap_or(user);
        return Some(Extract::new("login_limit", FAILURE).user(user));
    }
    let rest = message.strip_prefix("input_userauth_request: ")?;
    let user = strip_any(rest, &INVALID)?;
    let user = user.strip_suffix("[preauth]").unwrap_or(user);
    Some(Extract::new("login_invalid_user", FAILURE).user(user))
}

fn sshd_connection(message: &str) -> Option<Extract<'_>> {
    const ENDED: [&str; 5] = [
        "Connection closed by ",
        "Connection reset by ",
        "Disconnected from ",
        "Received disconnect from ",
        "Disconnecting ",
    ];
    if let Some(rest) = strip_any(message, &ENDED) {
        let authenticating = strip_any(rest, &["authenticating user ", "invalid user "]);
        let early = authenticating.is_some() || message.ends_with("[preauth]");
        let limit = message.contains("Too many authentication failures");
        let kind = if limit { "login_limit" } else { "disconnect" };
        let kind = Extract::new(kind, if early || limit { FAILURE } else { None });
        let rest = match authenticating.or_else(|| rest.strip_prefix("user ")) {
            Some(named) => {
                // An empty user name leaves the address first.
                let (user, remote, _) = match endpoint(named, false) {
                    Some((remote, rest)) if named.starts_with(remote.address) => ("", remote, rest),
                    _ => split_endpoint(named, " ", false)?,
                };
                return Some(kind.user(user).remote(remote));
            }
            None => rest,
        };
        return endpoint(rest, true).map(|(remote, _)| kind.remote(remote));
    }
    if let Some(rest) = message.strip_prefix("Magic value check failed (") {
        let (_, rest) = rest.split_once(" on obfuscated handshake from ")?;
        return endpoint(rest, true)
            .map(|(remote, _)| Extract::new("probe", FAILURE).remote(remote));
    }
    if let Some(rest) = message.strip_prefix("Close session: user ") {
        let (head, _) = rest.rsplit_once(" id ")?;
        let (user, remote, _) = split_endpoint(head, " from ", true)?;
        return Some(Extract::new("session_closed", SUCCESS).user(user).remote(remote));
    }
    const PROBES: [&str; 5] = [
        "Did not receive identification string from ",
        "Unable to negotiate with ",
        "Timeout before authentication for connection from ",
        "Timeout before authentication for ",
        "banner exchange: Connection from ",
    ];
    if let Some(rest) = strip_any(message, &PROBES) {
        return endpoint(rest, true)
            .map(|(remote, _)| Extract::new("probe", FAILURE).remote(remote));
    }
    if let Some(rest) = message.strip_prefix("Bad protocol version identification ") {
        let (_, last) = rest.rsplit_once("' from ")?;
        return endpoint(last, true)
            .map(|(remote, _)| Extract::new("probe", FAILURE).remote(remote));
    }
    if let Some(rest) = message.strip_prefix("ssh_dispatch_run_fatal: Connection from ") {
        let probe = Extract::new("probe", FAILURE);
        return match strip_any(rest, &["authenticating user ", "invalid user ", "user "]) {
            Some(named) => {
                split_endpoint(named, " ", false).map(|(user, r, _)| probe.user(user).remote(r))
            }
            None => endpoint(rest, true).map(|(remote, _)| probe.remote(remote)),
        };
    }
    if let Some(rest) = message.strip_prefix("Connection from ") {
        return endpoint(rest, true)
            .map(|(remote, _)| Extract::new("connect", None).remote(remote));
    }
    if let Some(rest) = message.strip_prefix("reverse mapping checking getaddrinfo for ") {
        let (_, rest) = rest.split_once(" [")?;
        let (address, _) = rest.split_once(']')?;
        return remote(address).map(|remote| Extract::new("reverse_mapping", None).remote(remote));
    }
    let (address, _) = message.strip_prefix("Address ")?.split_once(" maps to ")?;
    remote(address).map(|remote| Extract::new("reverse_mapping", None).remote(remote))
}

/// PAM's modules, whichever program they speak for. `tagged` says that the tag named the module.
fn pam(message: &str, tagged: bool) -> Option<Extract<'_>> {
    let (module, rest) = match message.strip_prefix('(') {
        Some(inner) => inner.split_once(") ")?,
        None => message
            .split_once(": ")
            .filter(|_| message.starts_with("pam_"))
            .unwrap_or(("", message)),
    };
    let is_pam = tagged || module.starts_with("pam_") || rest.starts_with("PAM ");
    if !is_pam {
        return None;
    }
    let failure = Extract::new("pam_authentication", FAILURE);
    if rest.starts_with("authentication failure")
        || (rest.starts_with("PAM ") && rest.contains(" more authentication failure"))
    {
        let (_, pairs) = rest.split_once(';')?;
        return Some(pam_pairs(pairs, failure));
    }
    if let Some(rest) = rest.strip_prefix("check pass; user unknown") {
        return rest.trim().is_empty().then_some(failure);
    }
    for (verb, kind) in [
        ("session opened for user ", "session_opened"),
        ("session closed for user ", "session_closed"),
    ] {
        if let Some(rest) = rest.strip_prefix(verb) {
            let user = rest.split_once(" by ").map_or(rest, |(user, _)| user);
            let user = user.split('(').next().unwrap_or_default();
            return Some(Extract::new(kind, SUCCESS).user(user));
        }
    }
    None
}

/// `logname= uid=0 euid=0 tty=ssh ruser= rhost=1.2.3.4  user=root`: what is sent stands in `ruser`
/// and `user`, so `rhost` is the last before ` user=`, and `user` all behind that.
fn pam_pairs<'a>(pairs: &'a str, found: Extract<'a>) -> Extract<'a> {
    let (head, user) = match pairs.split_once(" user=") {
        Some((head, user)) => (head, user),
        None => (pairs, ""),
    };
    let user = user.strip_suffix("[preauth]").unwrap_or(user).trim();
    let (before, host) = head.rsplit_once("rhost=").unwrap_or((head, ""));
    let host = host.strip_suffix("[preauth]").unwrap_or(host).trim();
    let ruser = before.split_once("ruser=").map_or("", |(_, ruser)| ruser.trim());
    let found = found.user(if user.is_empty() { ruser } else { user });
    match remote(host.split(' ').next().unwrap_or_default()) {
        Some(remote) => found.remote(remote),
        None => found,
    }
}

/// `alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls`, a reason before `TTY` when refused.
fn sudo(message: &str) -> Option<Extract<'_>> {
    let (user, rest) = message.split_once(" : ")?;
    let (head, command) = rest.split_once("COMMAND=")?;
    let target =
        head.split(" ; ").find_map(|part| part.trim().strip_prefix("USER=")).unwrap_or_default();
    let refused = !head.trim_start().starts_with("TTY=")
        && [
            "incorrect password",
            "NOT in sudoers",
            "not allowed",
            "NOT authorized",
            "a password is required",
        ]
        .iter()
        .any(|reason| head.contains(reason));
    let found = Extract::new("sudo", if refused { FAILURE } else { SUCCESS }).user(user);
    Some(Extract { target_user: target.trim(), command, ..found })
}

fn su(message: &str) -> Option<Extract<'_>> {
    let between = |outcome, user, target| {
        Some(Extract { user, target_user: target, ..Extract::new("su", outcome) })
    };
    if let Some(rest) = message.strip_prefix("Successful su for ") {
        let (target, user) = rest.split_once(" by ")?;
        return between(SUCCESS, user, target);
    }
    if let Some(rest) = strip_any(message, &["FAILED su for ", "FAILED SU for "]) {
        let (target, user) = rest.split_once(" by ")?;
        return between(FAILURE, user, target);
    }
    if let Some(rest) = strip_any(message, &["BAD SU ", "FAILED SU "]) {
        if let Some(rest) = rest.strip_prefix("(to ") {
            let (target, rest) = rest.split_once(") ")?;
            return between(FAILURE, rest.split(' ').next().unwrap_or_default(), target);
        }
        let (user, rest) = rest.split_once(" to ")?;
        return between(FAILURE, user, rest.split(' ').next().unwrap_or_default());
    }
    if let Some(rest) = message.strip_prefix("(to ") {
        let (target, rest) = rest.split_once(") ")?;
        return between(SUCCESS, rest.split(' ').next().unwrap_or_default(), target);
    }
    for (sign, outcome) in [("+ ", SUCCESS), ("- ", FAILURE)] {
        if let Some((_, pair)) = message.strip_prefix(sign).and_then(|rest| rest.split_once(' ')) {
            let (user, target) = pair.split_once(':').or_else(|| pair.split_once('-'))?;
            return between(outcome, user, target);
        }
    }
    let (user, rest) = message.split_once(" to ")?;
    let (target, rest) = rest.split_once(" on ")?;
    let single = |word: &str| !word.is_empty() && !word.contains(' ');
    (single(user) && single(target) && single(rest)).then_some(())?;
    between(SUCCESS, user, target)
}

fn login(message: &str) -> Option<Extract<'_>> {
    if let Some(rest) = message.strip_prefix("FAILED LOGIN ") {
        let found = Extract::new("login", FAILURE);
        let (from, user) = rest.split_once(" FOR ").or_else(|| rest.split_once(" for "))?;
        let user = user.split(", ").next().unwrap_or_default().trim_matches(['\'', '`']);
        let host = from.split_once("FROM ").or_else(|| from.split_once("from "));
        let remote = host.and_then(|(_, host)| remote(host.trim_matches(['\'', '`'])));
        return Some(found.user(user).remote(remote.unwrap_or_default()));
    }
    if message.starts_with("ROOT LOGIN ON ") || message.starts_with("ROOT LOGIN  on ") {
        return Some(Extract { implied_user: "root", ..Extract::new("login", SUCCESS) });
    }
    let (_, rest) = message.strip_prefix("LOGIN ON ")?.split_once(" BY ")?;
    let (user, host) = rest.split_once(" FROM ").unwrap_or((rest, ""));
    Some(Extract::new("login", SUCCESS).user(user).remote(remote(host).unwrap_or_default()))
}

fn logind(message: &str) -> Option<Extract<'_>> {
    let (_, user) = message.strip_prefix("New session ")?.split_once(" of user ")?;
    let user = user.split(" with class").next().unwrap_or_default().trim_end_matches('.');
    Some(Extract::new("session_opened", SUCCESS).user(user.trim_matches('\'')))
}
