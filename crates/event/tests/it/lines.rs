//! The readers of raw lines: samples of every form, and laws for any bytes.

use crate::support::{CLOCK, CTX, builder, cell};
use palisade_event::decode::lines::{Value, read, read_message};
use proptest::prelude::*;

/// The fields as `name=value`; times as seconds from the clock.
fn shown(line: &str) -> Vec<String> {
    read(line, CLOCK)
        .iter()
        .map(|(name, value)| match value {
            Value::Part(text) | Value::Word(text) => format!("{name}={text}"),
            Value::Int(number) => format!("{name}={number}"),
            Value::Time(micros) => format!("{name}={}", (micros - CLOCK) / 1_000_000),
        })
        .collect()
}

#[track_caller]
fn check(line: &str, want: &[&str]) {
    assert_eq!(shown(line), want, "{line}");
}

#[test]
fn combined_access_log_with_a_virtual_host() {
    check(
        r#"shop.example:443 192.0.2.7 - alice b [08/Oct/2023:02:00:01 +0200] "GET /a/b.php?x=1&y=%20 HTTP/1.1" 404 153 "https://ref.example/?q=\"1\"" "curl/8 \"x\"" "-""#,
        &[
            "type=http.request",
            "time=1",
            "src_ip=192.0.2.7",
            "user=alice b",
            "url.domain=shop.example",
            "http.request.method=GET",
            "http.version=1.1",
            "url=/a/b.php?x=1&y=%20",
            "url.path=/a/b.php",
            "url.query=x=1&y=%20",
            "http.response.status_code=404",
            "outcome=failure",
            "http.response.body.bytes=153",
            "http.request.referrer=https://ref.example/?q=\\\"1\\\"",
            "user_agent=curl/8 \\\"x\\\"",
        ],
    );
}

#[test]
fn requests_that_are_no_paths() {
    let tail = |line: &str| {
        let line = format!("2001:db8::1 - - [08/Oct/2023:00:00:00 +0000] {line}");
        shown(&line).split_off(3)
    };
    assert_eq!(
        tail(r#""CONNECT mail.example:25 HTTP/1.1" 400 166 "-" "-""#),
        [
            "http.request.method=CONNECT",
            "http.version=1.1",
            "url=mail.example:25",
            "http.response.status_code=400",
            "outcome=failure",
            "http.response.body.bytes=166",
        ]
    );
    assert_eq!(
        tail(r#""GET HTTP://x.example:80/p?q HTTP/1.0" 200 - "-" "-""#),
        [
            "http.request.method=GET",
            "http.version=1.0",
            "url=HTTP://x.example:80/p?q",
            "url.domain=x.example",
            "url.path=/p",
            "url.query=q",
            "http.response.status_code=200",
            "outcome=success",
        ]
    );
    assert_eq!(
        tail(r#""\x16\x03\x01" 400 0"#),
        [
            "url=\\x16\\x03\\x01",
            "http.response.status_code=400",
            "outcome=failure",
            "http.response.body.bytes=0",
        ]
    );
    assert_eq!(tail(r#""-" 408 0 "-" "-""#)[0], "http.response.status_code=408");
    assert_eq!(tail(r#""GET /cut"#), ["http.request.method=GET", "url=/cut", "url.path=/cut"]);
}

#[test]
fn the_address_of_an_access_line_is_where_the_server_writes_it() {
    // A user who is called like the rest of a line, and a resolved client.
    let line = r#"192.0.2.9 - x [08/Oct/2023:00:00:00 +0000] "GET /fake HTTP/1.1" 200 1" [08/Oct/2023:00:00:05 +0000] "GET / HTTP/1.1" 401 5"#;
    assert_eq!(shown(line)[2], "src_ip=192.0.2.9");
    let line = r#"host-1.example - - [08/Oct/2023:00:00:00 +0000] "GET / HTTP/1.1" 200 5"#;
    assert_eq!(shown(line)[2], "src_host=host-1.example");
    for line in [
        r#"not, a host - - [08/Oct/2023:00:00:00 +0000] "GET / HTTP/1.1" 200 5"#,
        r#"192.0.2.9 [08/Oct/2023:00:00:00 +0000] "GET / HTTP/1.1" 200 5"#,
        r#"192.0.2.9 - - [08/Oct/2023:00:00:00 +0000] GET / HTTP/1.1 200 5"#,
        "192.0.2.9 says [hello]",
    ] {
        check(line, &[]);
    }
}

#[test]
fn nginx_errors() {
    let head = "2023/10/08 00:00:02 [error] 17#18: *19 ";
    let tail = r#", client: 192.0.2.1, server: shop.example, request: "GET /a?b HTTP/1.1", host: "www.shop.example:8443""#;
    let rest = [
        "src_ip=192.0.2.1",
        "server.address=shop.example",
        "url.domain=www.shop.example",
        "http.request.method=GET",
        "http.version=1.1",
        "url=/a?b",
        "url.path=/a",
        "url.query=b",
    ];
    for (what, want) in [
        (
            r#"user "eve" was not found in "/etc/x""#,
            &["type=login_invalid_user", "outcome=failure", "auth.method=basic", "user=eve"][..],
        ),
        (
            r#"user "eve": password mismatch"#,
            &["type=login", "outcome=failure", "auth.method=basic", "user=eve"],
        ),
        (
            "PAM: user 'eve' - not authenticated: Authentication failure",
            &["type=login", "outcome=failure", "auth.method=pam", "user=eve"],
        ),
        (
            r#"open() "/srv/x" failed (2: No such file or directory)"#,
            &["type=http.error", "outcome=failure", "file.path=/srv/x"],
        ),
        ("access forbidden by rule", &["type=http.denied", "outcome=failure"]),
        (
            r#"limiting requests, excess: 5.0 by zone "one""#,
            &["type=http.limited", "outcome=failure"],
        ),
        (
            r#"ModSecurity: Access denied with code 403 (phase 2). Matched "x" [file "/y"] [id "949110"] [msg "Score"]"#,
            &["type=http.waf", "outcome=failure", "rule.id=949110", "rule.name=Score"],
        ),
    ] {
        let want = [&["time=2", "log.level=error"], want, &rest[..]].concat();
        check(&format!("{head}{what}{tail}"), &want);
    }
    check(
        r#"2023/10/08 00:00:02 [info] 8#8: *1 client login failed: "no" while in http auth state, client: 192.0.2.1, server: 0.0.0.0:25, login: "a@b.example""#,
        &[
            "time=2",
            "log.level=info",
            "type=login",
            "outcome=failure",
            "auth.method=mail",
            "user=a@b.example",
            "src_ip=192.0.2.1",
            "server.address=0.0.0.0:25",
        ],
    );
    check(
        "2023/10/08 00:00:02 [notice] 1#1: start worker process 7",
        &["time=2", "log.level=notice"],
    );
    check("2023/10/08 00:00:02 [loud] 1#1: start worker process 7", &[]);
}

/// What a path quotes and what a referrer says comes before or behind the server's own words.
#[test]
fn the_address_of_an_error_is_where_the_server_writes_it() {
    for line in [
        r#"2023/10/08 00:00:02 [error] 1#1: *1 open() "/srv/x, client: 198.51.100.9, server: y" failed (2: No such file or directory), client: 192.0.2.1, server: z, request: "GET / HTTP/1.1", host: "h""#,
        r#"2023/10/08 00:00:02 [error] 1#1: *1 access forbidden by rule, client: 192.0.2.1, server: z, request: "GET / HTTP/1.1", host: "h", referrer: "x, client: 198.51.100.9, server: y""#,
        "[Sun Oct 08 00:00:02.5 2023] [core:error] [pid 1] [client 192.0.2.1:5] AH00127: x [client 198.51.100.9:6] y",
        "[Sun Oct 08 00:00:02 2023] [error] [client 192.0.2.1] user [client 198.51.100.9] not found: /",
    ] {
        let found = shown(line);
        assert!(found.contains(&"src_ip=192.0.2.1".to_owned()), "{found:?}");
    }
}

#[test]
fn apache_errors() {
    check(
        "[Sun Oct 08 00:00:02.500000 2023] [auth_basic:error] [pid 10:tid 14] [client [2001:db8::1]:5022] AH01618: user eve not found: /x?y, referer: http://r.example/",
        &[
            "time=2",
            "log.level=error",
            "src_ip=2001:db8::1",
            "src_port=5022",
            "error.code=AH01618",
            "type=login_invalid_user",
            "outcome=failure",
            "auth.method=basic",
            "user=eve",
            "url=/x?y",
            "url.path=/x",
            "url.query=y",
            "http.request.referrer=http://r.example/",
        ],
    );
    for (what, want) in [
        (
            r#"user eve: authentication failure for "/x": Password Mismatch"#,
            &[
                "type=login",
                "outcome=failure",
                "auth.method=basic",
                "user=eve",
                "url=/x",
                "url.path=/x",
            ][..],
        ),
        (
            "Digest: user `eve' in realm `r' not found: /x",
            &[
                "type=login_invalid_user",
                "outcome=failure",
                "auth.method=digest",
                "user=eve",
                "url=/x",
                "url.path=/x",
            ],
        ),
        (
            "Digest: invalid nonce abc received - length is not 52",
            &["type=login", "outcome=failure", "auth.method=digest"],
        ),
        (
            "File does not exist: /srv/pma",
            &["type=http.error", "outcome=failure", "file.path=/srv/pma"],
        ),
        (
            "client denied by server configuration: /srv/x",
            &["type=http.denied", "outcome=failure", "file.path=/srv/x"],
        ),
    ] {
        let line = format!("[Sun Oct 08 00:00:02 2023] [error] [client 192.0.2.1] {what}");
        check(&line, &[&["time=2", "log.level=error", "src_ip=192.0.2.1"], want].concat());
    }
    check(
        "[Sun Oct 08 00:00:02 2023] [ssl:info] [pid 1:tid 1] (70014)End of file found: [client 192.0.2.1:17] AH02006: SSL handshake stopped",
        &[
            "time=2",
            "log.level=info",
            "src_ip=192.0.2.1",
            "src_port=17",
            "error.code=AH02006",
            "type=http.error",
        ],
    );
    check(
        "[Sun Oct 08 00:00:02 2023] [notice] workerEnv.init() ok",
        &["time=2", "log.level=notice"],
    );
    check("[emerg] [x] [client 192.0.2.1] y", &[]);
}

#[test]
fn syslog_headers_lead_to_the_reader_of_their_program() {
    let ssh = [
        "type=login",
        "outcome=failure",
        "user=root",
        "src_ip=192.0.2.1",
        "src_port=5",
        "auth.method=password",
    ];
    let message = "sshd[7]: Failed password for root from 192.0.2.1 port 5 ssh2";
    let own = ["host=web", "syslog.appname=sshd", "syslog.procid=7"];
    for (head, time) in [
        ("Oct  8 00:00:03 web ", "time=3"),
        ("Oct 8 00:00:03 web ", "time=3"),
        ("Oct 08 2022 00:00:03 web ", "time=-31535997"),
        ("Dec 31 00:00:00 web ", "time=-24278400"),
        ("2023-10-08T02:00:03.25+02:00 web ", "time=3"),
        ("<34>Oct  8 00:00:03 web ", "time=3"),
        // Some devices write their name twice.
        ("Oct  8 00:00:03 web web ", "time=3"),
    ] {
        check(&format!("{head}{message}"), &[&ssh[..], &[time], &own].concat());
    }
    let message = "Failed password for root from 192.0.2.1 port 5 ssh2";
    for tag in ["sshd:", "[sshd]:", "[sshd]"] {
        let line = format!("Oct  8 00:00:03 {tag} {message}");
        check(&line, &[&ssh[..], &["time=3", "syslog.appname=sshd"]].concat());
    }
    let line = "<34>1 2023-10-08T00:00:03Z web sshd 7 - - Failed password for root from ::ffff:192.0.2.1 port 5 ssh2";
    check(line, &[&ssh[..], &["time=3"], &own].concat());
    // The line's own stamp is finer than its header's.
    let line = r#"Oct  8 00:00:09 web nginx[7]: 192.0.2.1 - - [08/Oct/2023:00:00:03 +0000] "GET / HTTP/1.1" 200 5"#;
    let found = shown(line);
    assert_eq!(found[1], "time=3");
    assert_eq!(found[found.len() - 3..], ["host=web", "syslog.appname=nginx", "syslog.procid=7"]);
    // Nothing is known of these.
    for line in [
        "Oct  8 00:00:03 web cron[7]: (root) CMD (x)",
        "Oct  8 00:00:03 web sshd[7]: Server listening on 0.0.0.0 port 22.",
        "Oct  8 00:00:03 web sshd[7]: 192.0.2.1 - - [08/Oct/2023:00:00:03 +0000] \"GET / HTTP/1.1\" 200 5",
        "hello",
        "",
    ] {
        check(line, &[]);
    }
}

#[test]
fn applications() {
    let wordpress = |message: &str| {
        read_message("wordpress(blog.example)", message, CLOCK)
            .iter()
            .map(|(name, value)| match value {
                Value::Part(text) | Value::Word(text) => format!("{name}={text}"),
                other => format!("{name}={other:?}"),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let who = "outcome=failure user=bob src_ip=192.0.2.1";
    for (message, want) in [
        (
            "Authentication failure for bob from 192.0.2.1",
            format!("type=login {who} auth.method=password"),
        ),
        (
            "Authentication attempt for unknown user bob from 192.0.2.1",
            format!("type=login_invalid_user {who} auth.method=password"),
        ),
        (
            "XML-RPC authentication attempt for unknown user bob from 192.0.2.1",
            format!("type=login_invalid_user {who} auth.method=xmlrpc"),
        ),
        (
            "Blocked authentication attempt for bob from 192.0.2.1",
            format!("type=login_denied {who} auth.method=password"),
        ),
        (
            "XML-RPC multicall authentication failure from 192.0.2.1",
            "type=login outcome=failure src_ip=192.0.2.1 auth.method=xmlrpc".to_owned(),
        ),
        (
            "Blocked user enumeration attempt from 192.0.2.1",
            "type=probe outcome=failure src_ip=192.0.2.1 auth.method=password".to_owned(),
        ),
        ("Pingback requested from 192.0.2.1", String::new()),
    ] {
        assert_eq!(wordpress(message), want, "{message}");
    }
    check(
        "2023-10-08T00:00:01.5Z ACCEPT host=::ffff:192.0.2.1 port=39590 fd=4 n=1/4096",
        &["type=connect", "src_ip=192.0.2.1", "src_port=39590", "time=1"],
    );
    check(
        r#"2023-10-08T00:00:01,500Z [http-1] WARN  o.a.g.r.auth.AuthenticationService - Authentication attempt from [192.0.2.1, 198.51.100.1] for user "eve" failed."#,
        &["type=login", "outcome=failure", "user=eve", "src_ip=192.0.2.1", "time=1"],
    );
}

#[test]
fn a_line_stays_whole_beside_what_was_found() {
    let mut builder = builder();
    let known =
        r#"192.0.2.7 - - [08/Oct/2023:00:00:01 +0000] "GET /x HTTP/1.1" 200 15 "-" "curl/8""#;
    builder.push_line(&CTX, 0, known).unwrap();
    builder.push_line(&CTX, 1, "an ordinary line").unwrap();
    let batch = builder.finish().unwrap();
    let text = |name, row| cell(&batch, name, row);
    assert_eq!(text("message", 0), Some(serde_json::to_string(known).unwrap()));
    assert_eq!(text("time", 0), Some((CLOCK + 1_000_000).to_string()));
    assert_eq!(text("http.response.status_code", 0).as_deref(), Some("200"));
    assert_eq!(text("message", 1).as_deref(), Some("\"an ordinary line\""));
    assert_eq!(text("time", 1), Some(CLOCK.to_string()));
    assert_eq!(text("type", 1), None);
    assert_eq!(text("overflow", 0), None);
}

/// Words of the lines that are read, in any order.
fn words() -> impl Strategy<Value = String> {
    let words = vec![
        "192.0.2.1",
        "2001:db8::1",
        "::ffff:192.0.2.1",
        " - - ",
        "[08/Oct/2023:00:00:01 +0000] \"",
        "\"",
        "\\",
        "GET ",
        "/",
        "?",
        "http://",
        " HTTP/1.1\"",
        " 200 ",
        "-",
        "2023/10/08 00:00:02 [error] 1#1: *1 ",
        "user \"",
        "\" was not found in \"",
        ", client: ",
        ", server: ",
        ", request: \"",
        ", host: \"",
        ", referrer: \"",
        "ModSecurity: ",
        "[file \"",
        "[id \"",
        "[msg \"",
        "[Sun Oct 08 00:00:02 2023] ",
        "[core:error] ",
        "[pid 1:tid 2] ",
        "[client ",
        "] ",
        "AH01618: ",
        "user x not found: ",
        "(2)",
        ": ",
        "Oct  8 00:00:03 ",
        "web ",
        "nginx[1]: ",
        "sshd: ",
        "wordpress(x)[1]: ",
        "<34>",
        "1 ",
        "2023-10-08T00:00:01Z ",
        "ACCEPT host=",
        " port=",
        "Failed password for ",
        " from ",
        " port 1",
        "é",
        "Authentication failure for ",
        "\u{0}",
        "Close session: user ",
        " id 0",
    ];
    prop::collection::vec(prop::sample::select(words), 0..14).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Any text is read or not, never refused: no name stands twice, no text is empty, texts are parts
    /// of the line, and the row has every field in its place.
    #[test]
    fn any_text_is_read_or_not(
        line in prop_oneof![
            words(),
            words(),
            prop::collection::vec(any::<u8>(), 0..80).prop_map(|b| String::from_utf8_lossy(&b).into_owned()),
        ],
        clock in prop_oneof![Just(CLOCK), any::<i64>()],
    ) {
        let fields = read(&line, clock);
        let mut names: Vec<_> = fields.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        prop_assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for (_, value) in fields.iter() {
            if let Value::Part(text) = value {
                let (whole, part) = (line.as_bytes().as_ptr_range(), text.as_bytes().as_ptr_range());
                prop_assert!(!text.is_empty() && whole.start <= part.start && part.end <= whole.end);
            }
        }
        let mut builder = builder();
        let taken = builder.push_line(&CTX, 0, &line);
        prop_assert_eq!(taken.is_ok(), !line.is_empty());
        if let Some(batch) = builder.finish() {
            let overflow = cell(&batch, "overflow", 0);
            prop_assert!(overflow.is_none(), "{overflow:?}");
            prop_assert_eq!(cell(&batch, "message", 0), Some(serde_json::to_string(&line).unwrap()));
        }
    }
}
