use super::*;
use crate::submit::FieldValue;
use proptest::prelude::*;

/// 2026-05-01T12:00:00Z.
const NOW: i64 = 1_777_636_800_000_000;

fn read(line: &[u8]) -> (ParsedRecord, Format) {
    parse(&Bytes::copy_from_slice(line), &Context { now: NOW, utc_offset_minutes: 0 })
}

/// The fields as `name=value` lines.
fn shown(line: &str) -> Vec<String> {
    let (record, _) = read(line.as_bytes());
    record
        .fields()
        .map(|(name, value)| match value {
            FieldValue::Text(text) => format!("{name}={text}"),
            FieldValue::Int(number) => format!("{name}={number}"),
            FieldValue::Float(number) => format!("{name}={number}"),
            FieldValue::Bool(value) => format!("{name}={value}"),
            FieldValue::Time(micros) => format!("{name}={}", micros - NOW),
            FieldValue::Json(text) => format!("{name}={text}"),
        })
        .collect()
}

#[track_caller]
fn check(line: &str, want: &[&str]) {
    assert_eq!(shown(line), want, "{line}");
}

#[test]
fn rfc5424_with_everything() {
    check(
        "<165>1 2026-05-01T12:00:00.003Z mymachine.example.com evntslog 77 ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"App\\\"l\\]i\\\\c\\a\"][examplePriority@32473 class=\"high\" class=\"low\"] \u{feff}An application event",
        &[
            "syslog.facility=local4",
            "syslog.severity=notice",
            "syslog.severity_code=5",
            "time=3000",
            "host=mymachine.example.com",
            "syslog.appname=evntslog",
            "syslog.procid=77",
            "syslog.msgid=ID47",
            "sd.exampleSDID@32473.iut=3",
            "sd.exampleSDID@32473.eventSource=App\"l]i\\c\\a",
            "sd.examplePriority@32473.class=high",
            "sd.examplePriority@32473.class.2=low",
            "message=An application event",
        ],
    );
}

#[test]
fn rfc5424_with_nil_values_and_nothing() {
    let tail = ["syslog.facility=kern", "syslog.severity=emerg", "syslog.severity_code=0"];
    check("<0>1 - - - - - -", &tail);
    check("<0>1 - - - - - - ", &tail);
    check("<0>1 - - - - - [a b=\"c\"]", &[&tail[..], &["sd.a.b=c"]].concat());
    check("<0>1 - - - - - [a]", &tail);
    // Malformed structured data stays in the message.
    check("<0>1 - h - - - [a b=c] x", &[&tail[..], &["host=h", "message=[a b=c] x"]].concat());
    // Another version is no RFC 5424.
    assert_eq!(read(b"<34>2 - - - - - - x").1, Format::Rfc3164);
}

#[test]
fn rfc5424_with_too_many_parameters_keeps_them_as_received() {
    let many: String = (0..300).map(|n| format!(" p{n}=\"v\"")).collect();
    let line = format!("<0>1 - - - - - [a{many}] hello");
    let fields = shown(&line);
    assert_eq!(fields[3], format!("syslog.structured_data=[a{many}]"));
    assert_eq!(fields[4], "message=hello");
}

#[test]
fn rfc3164_in_all_its_shapes() {
    let tail = ["syslog.facility=auth", "syslog.severity=crit", "syslog.severity_code=2"];
    let with = |fields: &[&'static str]| [&tail, fields].concat();
    check(
        "<34>May  1 12:00:00 mymachine su[12]: hello: there",
        &with(&[
            "time=0",
            "host=mymachine",
            "syslog.appname=su",
            "syslog.procid=12",
            "message=hello: there",
        ]),
    );
    check("<34>May  1 12:00:00 tag: x", &with(&["time=0", "syslog.appname=tag", "message=x"]));
    check(
        "<34>May  1 12:00:00 tag[9]: x",
        &with(&["time=0", "syslog.appname=tag", "syslog.procid=9", "message=x"]),
    );
    check(
        "<34>May  1 12:00:00 host last message repeated 2 times",
        &with(&["time=0", "host=host", "message=last message repeated 2 times"]),
    );
    check(
        "<34>tag[1]: no stamp",
        &with(&["syslog.appname=tag", "syslog.procid=1", "message=no stamp"]),
    );
    check("<34>just text here", &with(&["message=just text here"]));
    check("<34>", &with(&[]));
    check(
        "<34>2026-05-01T12:00:00.5+00:00 host prog: x",
        &with(&["time=500000", "host=host", "syslog.appname=prog", "message=x"]),
    );
    // Cisco IOS and ASA.
    check(
        "<34>45: *May  1 12:00:00.100 UTC: %SYS-5-CONFIG_I: Configured",
        &with(&[
            "syslog.sequence=45",
            "time=100000",
            "syslog.appname=%SYS-5-CONFIG_I",
            "message=Configured",
        ]),
    );
    check(
        "<34>45: router1: May  1 12:00:00: %LINK-3-UPDOWN: Interface",
        &with(&[
            "syslog.sequence=45",
            "time=0",
            "host=router1",
            "syslog.appname=%LINK-3-UPDOWN",
            "message=Interface",
        ]),
    );
    check(
        "<34>May 01 2026 12:00:00: %ASA-6-302013: Built inbound",
        &with(&["time=0", "syslog.appname=%ASA-6-302013", "message=Built inbound"]),
    );
    check(
        "<34>May 01 2026 12:00:00 fw1 : %ASA-6-302013: Built",
        &with(&["time=0", "host=fw1", "message=: %ASA-6-302013: Built"]),
    );
}

#[test]
fn files_have_lines_without_priority() {
    check(
        "May  1 12:00:00 LabSZ sshd[24200]: Invalid user webmaster from 173.234.31.186",
        &[
            "time=0",
            "host=LabSZ",
            "syslog.appname=sshd",
            "syslog.procid=24200",
            "message=Invalid user webmaster from 173.234.31.186",
            "type=login_invalid_user",
            "outcome=failure",
            "user=webmaster",
            "src_ip=173.234.31.186",
        ],
    );
    check("no syslog at all: really", &["message=no syslog at all: really"]);
    assert_eq!(read(b"no syslog").1, Format::Plain);
    check("", &[]);
}

#[test]
fn priorities_out_of_range_are_text() {
    for line in ["<192>x", "<999>x", "<>x", "<1", "<a>x", "<0001>x", "<+1>x"] {
        check(line, &[&format!("message={line}")]);
    }
}

#[test]
fn json_in_the_message_gives_fields() {
    check(
        "<0>1 - web - - - - @cee: {\"a\":{\"b\":1},\"host\":\"h\",\"hostname\":\"n\",\"c\":[1,2],\"d\":null,\"e\":1.5,\"f\":true,\"msg\":\"m\",\"user\":\"u\"}",
        &[
            "syslog.facility=kern",
            "syslog.severity=emerg",
            "syslog.severity_code=0",
            "host=web",
            "message=@cee: {\"a\":{\"b\":1},\"host\":\"h\",\"hostname\":\"n\",\"c\":[1,2],\"d\":null,\"e\":1.5,\"f\":true,\"msg\":\"m\",\"user\":\"u\"}",
            "a.b=1",
            "c=[1,2]",
            "e=1.5",
            "f=true",
            "json.host=h",
            "json.hostname=n",
            "json.msg=m",
            "user=u",
        ],
    );
    check("{broken}", &["message={broken}"]);
}

#[test]
fn other_encodings_lose_nothing() {
    let (record, _) = read(b"<34>May  1 12:00:00 host app: caf\xe9");
    assert_eq!(record.get("message"), Some(FieldValue::Text("café")));
    assert_eq!(record.get("syslog.encoding"), Some(FieldValue::Text("iso-8859-1")));
    let back: Vec<u8> =
        record.text().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    assert_eq!(back, b"<34>May  1 12:00:00 host app: caf\xe9");
}

/// Words of the messages that the auth reader knows, in any order.
fn sentence() -> impl Strategy<Value = String> {
    let words = vec![
        "Failed",
        "Accepted",
        " password",
        "Connection closed by ",
        "Disconnecting ",
        " from ",
        " for ",
        "invalid user ",
        "authenticating user ",
        "1.2.3.4",
        "::1",
        " port 22",
        " ssh2",
        ":",
        "[",
        "]",
        " x",
        "é",
        " ",
        "error: PAM: Authentication failure",
        "User ",
        " not allowed because ",
        "pam_unix(sshd:auth): ",
        "authentication failure; ",
        "ruser=",
        " rhost=",
        " user=",
        " : ",
        "TTY=",
        "COMMAND=",
        "USER=root ; ",
        "(to ",
        ") ",
        "+ ",
        " to ",
        " on ",
        "FAILED LOGIN 1 FROM ",
        " FOR ",
        ", ",
        "New session ",
        " of user ",
        "message repeated 2 times: [ ",
        "session opened for user ",
        "Address ",
        " maps to ",
        "(pam_unix) ",
    ];
    proptest::collection::vec(proptest::sample::select(words), 0..12)
        .prop_map(|words| words.concat())
}

proptest! {
    /// Any bytes give a record whose names are unique and whose parts stand in its text; and the
    /// message is the end of the text, so nothing behind the header is lost.
    #[test]
    fn any_bytes_give_a_sound_record(
        head in prop_oneof![
            Just(""), Just("<34>"), Just("<34>1 "), Just("<34>1 - h a p m "), Just("<34>May  1 12:00:00 "),
            Just("<34>1 - - - - - [a b=\""), Just("<0>12: *May  1 12:00:00: "), Just("May  1 12:00:00 h sshd[1]: "),
            Just("<34>1 - - - - - - {"), Just("x sudo: "),
        ],
        tail in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            proptest::collection::vec(b' '..=b'~', 0..60),
            sentence().prop_map(String::into_bytes),
        ],
    ) {
        let line = [head.as_bytes(), &tail].concat();
        let (record, _) = read(&line);
        prop_assert!(std::str::from_utf8(&record.raw).is_ok());
        let mut names: Vec<_> = record.fields.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        prop_assert_eq!(names.len(), all);
        for (_, value) in &record.fields {
            if let OwnedValue::Part(range) = value {
                prop_assert!(record.text().get(range.start as usize..range.end as usize).is_some());
            }
        }
        if let Some(FieldValue::Text(message)) = record.get("message") {
            prop_assert!(record.text().ends_with(message));
        }
    }

    /// What the auth reader finds stands in the message.
    #[test]
    fn any_sentence_is_read_or_not(
        program in proptest::sample::select(vec!["sshd", "su", "sudo", "login", "x", "sshd(pam_unix)", "systemd-logind"]),
        message in sentence(),
    ) {
        if let Some(found) = auth::extract(program, &message) {
            prop_assert!(message.contains(found.user) && message.contains(found.address) || found.user == "root");
        }
    }
}
