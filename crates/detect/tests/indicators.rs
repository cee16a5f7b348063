//! Lists of indicators: their format, which columns are looked at, and that the scanner finds what a search by hand finds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use arrow::array::{ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use palisade_detect::indicators::{
    Indicators, Kind, LIMITS, Level, List, ListError, ListSpec, Looks, Scanner, looks,
};
use palisade_event::schema::json_field;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

fn spec(name: &str, tenant: Option<&str>) -> ListSpec {
    let (name, version) = (name.to_owned(), "v".to_owned());
    ListSpec { tenant: tenant.map(str::to_owned), name, level: Level::Medium, version }
}

fn set(text: &str) -> Indicators {
    let list = List::parse(text.as_bytes()).unwrap();
    assert_eq!(list.refused(), [], "every line is taken");
    Indicators::build(vec![(spec("test", None), list)]).unwrap()
}

fn batch(columns: Vec<(&str, Vec<Option<&str>>)>) -> RecordBatch {
    let columns = columns
        .into_iter()
        .map(|(name, values)| (name, Arc::new(StringArray::from(values)) as ArrayRef, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Row, column and indicator of what is found.
fn found(set: &Indicators, batch: &RecordBatch) -> Vec<(u32, String, String)> {
    let mut scanner = Scanner::new();
    let found = scanner.scan(set, batch).to_vec();
    let name = |column: u32| batch.schema().field(column as usize).name().clone();
    found
        .into_iter()
        .map(|found| (found.row, name(found.column), set.get(found.indicator).unwrap().value()))
        .collect()
}

const GOLDEN: &str = "\u{feff}# addresses\n192.0.2.1\n198.51.100.0/24,high\n2001:db8::/32,,feed,seen\n::ffff:192.0.2.7\n\n\
    Evil.Example # a domain\n*.wild.example\n.dot.example\nhxxp://evil[.]example:80/a?b#c\nevil.example/path\n\
    44d88612fea8a8f36de82e1278abb02f,critical,eicar,\"a, \"\"b\"\"\"\nda39a3ee5e6b4b0d3255bfef95601890afd80709\r\n\
    E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\nBob@Evil.example\n\
    hostname,www.bad.example,low\nip,192.0.2.9\tx\n";

#[test]
fn the_format_is_read_as_documented() {
    let list = List::parse(GOLDEN.as_bytes()).unwrap();
    let values: Vec<_> = list.values().collect();
    let expected = [
        (Kind::Address, "192.0.2.1"),
        (Kind::Network, "198.51.100.0/24"),
        (Kind::Network, "2001:db8::/32"),
        (Kind::Address, "192.0.2.7"),
        (Kind::Domain, "evil.example"),
        (Kind::Domain, "wild.example"),
        (Kind::Domain, "dot.example"),
        (Kind::Url, "evil.example/a?b"),
        (Kind::Url, "evil.example/path"),
        (Kind::Md5, "44d88612fea8a8f36de82e1278abb02f"),
        (Kind::Sha1, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        (Kind::Sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (Kind::Email, "bob@evil.example"),
        (Kind::Hostname, "www.bad.example"),
    ];
    assert_eq!(values, expected.map(|(kind, text)| (kind, text.to_owned())));
    // With a tab in it, a line has no commas.
    assert_eq!(list.refused().len(), 1, "{:?}", list.refused());
    assert_eq!(list.refused()[0].line, 17);
    let set = Indicators::build(vec![(spec("l", None), list)]).unwrap();
    let about = |value: &str| {
        let number = (0..set.len() as u32).find(|n| set.get(*n).unwrap().value() == value);
        let one = set.get(number.unwrap()).unwrap();
        (one.level, one.source.to_owned(), one.note.to_owned())
    };
    assert_eq!(about("198.51.100.0/24"), (Level::High, String::new(), String::new()));
    assert_eq!(about("2001:db8::/32"), (Level::Medium, "feed".into(), "seen".into()));
    let eicar = about("44d88612fea8a8f36de82e1278abb02f");
    assert_eq!(eicar, (Level::Critical, "eicar".into(), "a, \"b\"".into()));
}

#[test]
fn a_header_names_the_columns() {
    let text = "id,Type,Value,comment,severity\n1,domain,a.example,\"one, two\",low\n2,sha256,b.example,,\n3,nonsense,c.example,,\n4,,d.example,,grave\n5,,,,\n";
    let list = List::parse(text.as_bytes()).unwrap();
    assert_eq!(list.values().collect::<Vec<_>>(), [(Kind::Domain, "a.example".to_owned())]);
    let lines: Vec<_> = list.refused().iter().map(|refused| refused.line).collect();
    assert_eq!(lines, [3, 4, 5, 6], "{:?}", list.refused());
    let reasons: Vec<_> = list.refused().iter().map(|refused| refused.reason.as_str()).collect();
    assert!(reasons[0].contains("of the kind that its line names"), "{reasons:?}");
    assert!(reasons[1].contains("'nonsense' is no kind"), "{reasons:?}");
    assert!(reasons[2].contains("'grave' is no level"), "{reasons:?}");
    assert!(reasons[3].contains("no value"), "{reasons:?}");
}

#[test]
fn what_only_looks_defanged_stays() {
    let list = List::parse(b"hxxpevil.example\nhxxps[:]//evil.example/a\nHXXP://evil.example/b\n")
        .unwrap();
    let values: Vec<String> = list.values().map(|(_, value)| value).collect();
    assert_eq!(values, ["hxxpevil.example", "evil.example/a", "evil.example/b"]);
}

#[test]
fn what_is_no_indicator_is_refused_by_number_and_the_rest_stays() {
    for bad in [
        "0.0.0.0/0",
        "10.0.0.0/33",
        "::/0",
        "::ffff:0.0.0.0/96",
        "10.0.0.1-10.0.0.9",
        "nothing",
        "a..example",
        "-",
        "1.2.3",
        "1.2.3.4.5",
        "exämple.example",
        "deadbeef",
        "@evil.example",
        "a@b",
        "http://",
        "http://nothing/x",
        "a b",
        &"x".repeat(9000),
        &format!("{}.example", "a".repeat(64)),
        &format!("http://evil.example/{}", "a".repeat(3000)),
    ] {
        let text = format!("{bad}\nevil.example\n");
        let list = List::parse(text.as_bytes()).unwrap();
        assert_eq!(list.len(), 1, "{bad}: {:?}", list.values().collect::<Vec<_>>());
        assert_eq!((list.refused()[0].line, list.refused_total()), (1, 1), "{bad}");
    }
    let list = List::parse(b"\xff\xfe\nevil.example\n").unwrap();
    assert_eq!((list.len(), list.refused()[0].line), (1, 1));
}

#[test]
fn lists_are_bounded() {
    let text = "evil.example\n".repeat(LIMITS.indicators + 1);
    let error = List::parse(text.as_bytes()).unwrap_err();
    assert_eq!(error, ListError::TooMany { line: LIMITS.indicators + 1, most: LIMITS.indicators });
    let text = "nonsense\n".repeat(LIMITS.refused + 5);
    let list = List::parse(text.as_bytes()).unwrap();
    assert_eq!((list.refused().len(), list.refused_total()), (LIMITS.refused, LIMITS.refused + 5));
    let many = (0..=LIMITS.lists).map(|n| (spec(&n.to_string(), None), List::default())).collect();
    assert!(matches!(Indicators::build(many), Err(ListError::TooManyLists { .. })));
}

#[test]
fn columns_are_told_by_their_names() {
    let places = [
        "src_ip",
        "dst_ip",
        "host",
        "source.nat.ip",
        "xForwardedFor",
        "clientIp",
        "related.hosts.ip",
        "url.domain",
        "dns.question.name",
        "QueryName",
        "QueryResults",
        "tls.client.server_name",
        "http.host",
        "DestinationHostname",
        "dst_endpoint.domain",
        "dns.answers.data",
    ];
    for name in places {
        assert!(looks(name).has(Looks::PLACES), "{name}");
    }
    for name in
        ["file.hash.sha256", "Hashes", "process.hash.md5", "hash", "file.hashes.value", "SHA1"]
    {
        assert!(looks(name).has(Looks::HASHES), "{name}");
    }
    for name in ["url", "http.request.referrer", "http_request.url.url_string", "RequestURL"] {
        assert!(looks(name).has(Looks::URLS), "{name}");
    }
    for name in ["user", "user.email", "email.from.address", "mail.to", "Sender"] {
        assert!(looks(name).has(Looks::EMAILS), "{name}");
    }
    for name in
        ["message", "tenant", "type", "process.name", "Image", "imphash", "dst_port", "n", ""]
    {
        assert!(looks(name).is_none(), "{name}");
    }
}

#[test]
fn values_are_found_in_all_their_spellings() {
    let set = set(
        "192.0.2.1\n198.51.100.0/24\n2001:db8::1\nevil.example\nhostname,only.example\nbad.example/a/b?c=d\n\
         44d88612fea8a8f36de82e1278abb02f\nda39a3ee5e6b4b0d3255bfef95601890afd80709\neve@mail.example\n",
    );
    let cases = [
        ("src_ip", "192.0.2.1", Some("192.0.2.1")),
        ("src_ip", "::FFFF:192.0.2.1", Some("192.0.2.1")),
        ("src_ip", "192.0.2.1:443", Some("192.0.2.1")),
        ("x_forwarded_for", "10.0.0.1, 198.51.100.77", Some("198.51.100.0/24")),
        ("dst_ip", "[2001:DB8:0:0::1]:8443", Some("2001:db8::1")),
        ("dst_ip", "2001:db8::1%eth0", Some("2001:db8::1")),
        ("dst_ip", "192.0.2.10", None),
        ("dst_ip", "198.51.101.0", None),
        ("url.domain", "EVIL.example.", Some("evil.example")),
        ("host", "a.b.evil.example:80", Some("evil.example")),
        ("host", "notevil.example", None),
        ("host", "evil.example.org", None),
        ("host", "only.example", Some("only.example")),
        ("host", "x.only.example", None),
        ("host", "192.0.2.1", Some("192.0.2.1")),
        ("QueryResults", "type: 5 x.evil.example;::ffff:10.1.1.1;", Some("evil.example")),
        ("url", "https://user:pw@bad.EXAMPLE:443/a/b?c=d#e", Some("bad.example/a/b?c=d")),
        ("url", "http://bad.example/a/b", None),
        ("url", "ftp://www.evil.example", Some("evil.example")),
        ("url", "http://198.51.100.3:8080/x", Some("198.51.100.0/24")),
        ("url", "/a/b?c=d", None),
        (
            "Hashes",
            "SHA1=DA39A3EE5E6B4B0D3255BFEF95601890AFD80709,MD5=00",
            Some("da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ),
        ("Hashes", "IMPHASH=44d88612fea8a8f36de82e1278abb02f", None),
        (
            "file.hash.md5",
            "44D88612FEA8A8F36DE82E1278ABB02F",
            Some("44d88612fea8a8f36de82e1278abb02f"),
        ),
        ("user", "Eve@Mail.Example", Some("eve@mail.example")),
        ("user.email", "Eve <eve@mail.example>", Some("eve@mail.example")),
        ("user.email", "x@sub.evil.example", Some("evil.example")),
        ("message", "evil.example", None),
    ];
    for (column, value, expected) in cases {
        let rows = batch(vec![(column, vec![None, Some(value)])]);
        let expected: Vec<_> =
            expected.map(|one| (1, column.to_owned(), one.to_owned())).into_iter().collect();
        assert_eq!(found(&set, &rows), expected, "{column} {value}");
    }
}

#[test]
fn strings_of_json_are_looked_at() {
    let set = set(
        "192.0.2.1\nevil.example/a\nsha256,e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n",
    );
    let json = |name: &str, value: &str| {
        let array = Arc::new(StringArray::from(vec![value])) as ArrayRef;
        RecordBatch::try_new(Arc::new(Schema::new(vec![json_field(name)])), vec![array]).unwrap()
    };
    let hash = r#"[{"algorithm":"SHA-256","value":"E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"}]"#;
    for (name, value, hits) in [
        ("related.ip", r#"["10.0.0.1","192.0.2.1"]"#, 1),
        ("page.url", r#"["http:\/\/evil.example\/a"]"#, 1),
        ("file.hashes", hash, 1),
        ("related.ip", r#"["a\"b", "192.0.2.1"#, 0),
        ("related.ip", r#"{"a":[1,2,{"b":"192.0.2.1"}]}"#, 1),
    ] {
        assert_eq!(found(&set, &json(name, value)).len(), hits, "{name} {value}");
    }
}

#[test]
fn a_tenants_list_is_for_its_rows() {
    let list = || List::parse(b"192.0.2.1\n").unwrap();
    let lists = vec![
        (spec("all", None), list()),
        (spec("acme", Some("acme")), list()),
        (spec("other", Some("other")), list()),
    ];
    let set = Indicators::build(lists).unwrap();
    let rows = batch(vec![
        ("tenant", vec![Some("acme"), Some("third")]),
        ("src_ip", vec![Some("192.0.2.1"), Some("192.0.2.1")]),
    ]);
    let mut scanner = Scanner::new();
    let of: Vec<_> = scanner
        .scan(&set, &rows)
        .iter()
        .map(|found| (found.row, set.get(found.indicator).unwrap().list.spec.name.as_str()))
        .collect();
    assert_eq!(of, [(0, "all"), (0, "acme"), (1, "all")]);
}

#[test]
fn of_the_same_lines_of_a_list_the_first_counts() {
    let text = "evil.example,low\nEVIL.example.,high\n10.0.0.0/8\n10.1.2.3/8\n";
    let set = set(text);
    assert_eq!(set.len(), 2);
    assert_eq!(set.get(0).unwrap().level, Level::Low);
    assert_eq!(set.lists()[0].kinds, [(Kind::Network, 1), (Kind::Domain, 1)]);
}

/// An indicator and how values of its kind are told by hand.
#[derive(Debug, Clone)]
enum Naive {
    Net(IpAddr, u8),
    Name(String, bool),
    Mail(String),
    Hash(String),
}

fn bits(address: IpAddr) -> (String, u8) {
    match address {
        IpAddr::V4(v4) => (format!("{:032b}", v4.to_bits()), 32),
        IpAddr::V6(v6) => (format!("{:0128b}", v6.to_bits()), 128),
    }
}

impl Naive {
    fn line(&self) -> String {
        match self {
            Self::Net(address, length) if *length == bits(*address).1 => address.to_string(),
            Self::Net(address, length) => format!("{address}/{length}"),
            Self::Name(name, true) => name.clone(),
            Self::Name(name, false) => format!("hostname,{name}"),
            Self::Mail(text) | Self::Hash(text) => text.clone(),
        }
    }

    fn is(&self, value: &Value) -> bool {
        let in_name = |name: &str| match self {
            Self::Name(own, below) => name == own || *below && name.ends_with(&format!(".{own}")),
            _ => false,
        };
        match (self, value) {
            (Self::Net(net, length), Value::Address(address)) => {
                let ((net, whole), (address, other)) = (bits(*net), bits(*address));
                whole == other && net[..*length as usize] == address[..*length as usize]
            }
            (Self::Mail(own), Value::Mail(name, domain)) => *own == format!("{name}@{domain}"),
            (Self::Hash(own), Value::Hash(hash)) => own == hash,
            (_, Value::Name(name) | Value::Mail(_, name)) => in_name(name),
            _ => false,
        }
    }
}

/// A value of a row, as it is meant.
#[derive(Debug, Clone)]
enum Value {
    Address(IpAddr),
    Name(String),
    Mail(String, String),
    Hash(String),
}

impl Value {
    /// The column that it stands in, and one of its spellings.
    fn spelled(&self, how: u8) -> (usize, String) {
        match self {
            Self::Address(address @ IpAddr::V4(v4)) => match how % 4 {
                0 => (0, format!("{address}:80")),
                1 => (0, v4.to_ipv6_mapped().to_string().to_uppercase()),
                _ => (0, address.to_string()),
            },
            Self::Address(address) => match how % 3 {
                0 => (0, format!("[{address}]:53")),
                _ => (0, address.to_string().to_uppercase()),
            },
            Self::Name(name) => match how % 4 {
                0 => (1, name.to_uppercase()),
                1 => (1, format!("{name}.")),
                2 => (2, format!("https://{name}:8443/x")),
                _ => (0, name.clone()),
            },
            Self::Mail(name, domain) => match how % 2 {
                0 => (3, format!("{} <{name}@{domain}>", "Some One")),
                _ => (3, format!("{}@{domain}", name.to_uppercase())),
            },
            Self::Hash(hash) => match how % 3 {
                0 => (4, format!("MD5={hash},IMPHASH=0")),
                1 => (4, hash.to_uppercase()),
                _ => (4, hash.clone()),
            },
        }
    }
}

const COLUMNS: [&str; 5] = ["dst_ip", "url.domain", "url", "user.email", "file.hash"];

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn v4() -> impl Strategy<Value = IpAddr> {
    (0u8..3, 0u8..4, 0u8..16).prop_map(|(a, b, c)| IpAddr::from([10, a * 100, b * 60, c * 17]))
}

fn v6() -> impl Strategy<Value = IpAddr> {
    (0u16..3, 0u16..16).prop_map(|(a, b)| IpAddr::from([0x2001, 0xdb8, a << 14, 0, 0, 0, 0, b]))
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "evil", "1"]), 1..4)
        .prop_map(|labels| labels.join(".") + ".example")
}

fn indicator() -> impl Strategy<Value = Naive> {
    prop_oneof![
        (v4(), 1u8..=32).prop_map(|(address, length)| Naive::Net(address, length)),
        v4().prop_map(|address| Naive::Net(address, 32)),
        (v6(), 1u8..=128).prop_map(|(address, length)| Naive::Net(address, length)),
        (name(), any::<bool>()).prop_map(|(name, below)| Naive::Name(name, below)),
        (one_of(&["a", "b"]), name())
            .prop_map(|(local, domain)| Naive::Mail(format!("{local}@{domain}"))),
        one_of(&["00", "01", "10", "11"])
            .prop_map(|end| Naive::Hash(format!("{}{end}", "a".repeat(30)))),
    ]
}

fn row_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        v4().prop_map(Value::Address),
        v6().prop_map(Value::Address),
        name().prop_map(Value::Name),
        (one_of(&["a", "b"]), name()).prop_map(|(local, domain)| Value::Mail(local, domain)),
        one_of(&["00", "01", "10", "11"])
            .prop_map(|end| Value::Hash(format!("{}{end}", "a".repeat(30)))),
    ]
}

proptest! {
    /// The scanner finds what a search by hand finds in every row, however the columns are laid out.
    #[test]
    fn the_scanner_equals_a_search_by_hand(
        indicators in prop::collection::vec(indicator(), 0..40),
        rows in prop::collection::vec((row_value(), any::<u8>()), 1..60),
        as_dictionary in any::<bool>(),
        slice in any::<bool>(),
    ) {
        let text: String = indicators.iter().map(|one| one.line() + "\n").collect();
        let list = List::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(list.refused(), &[]);
        let set = Indicators::build(vec![(spec("l", None), list)]).unwrap();
        let mut columns = vec![vec![None; rows.len()]; COLUMNS.len()];
        for (row, (value, how)) in rows.iter().enumerate() {
            let (column, text) = value.spelled(*how);
            columns[column][row] = Some(text);
        }
        let arrays: Vec<ArrayRef> = columns.iter().map(|values| {
            let texts = values.iter().map(Option::as_deref);
            if as_dictionary {
                Arc::new(texts.collect::<DictionaryArray<Int32Type>>()) as ArrayRef
            } else {
                Arc::new(texts.collect::<StringArray>()) as ArrayRef
            }
        }).collect();
        let kind = |array: &ArrayRef| -> DataType { array.data_type().clone() };
        let fields: Vec<Field> = COLUMNS.iter().zip(&arrays)
            .map(|(name, array)| Field::new(*name, kind(array), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let (from, many) = if slice { (rows.len() / 3, rows.len() / 4) } else { (0, rows.len()) };
        let batch = batch.slice(from, many);

        // What the lines mean, each once.
        let mut expected = Vec::new();
        for (row, (value, how)) in rows.iter().enumerate().skip(from).take(many) {
            let column = value.spelled(*how).0;
            let mut of_row: Vec<String> = indicators.iter()
                .filter(|indicator| indicator.is(value))
                .map(|indicator| {
                    let one = List::parse(indicator.line().as_bytes()).unwrap();
                    let (kind, value) = one.values().next().unwrap();
                    format!("{} {value}", kind.name())
                })
                .collect();
            of_row.sort();
            of_row.dedup();
            expected.extend(of_row.into_iter().map(|one| ((row - from) as u32, column as u32, one)));
        }
        let mut scanner = Scanner::new();
        let mut got: Vec<_> = scanner.scan(&set, &batch).iter().map(|found| {
            let one = set.get(found.indicator).unwrap();
            (found.row, found.column, format!("{} {}", one.kind.name(), one.value()))
        }).collect();
        got.sort();
        prop_assert_eq!(got, expected);
    }

    /// Arbitrary bytes are a list or an error, every line is taken, refused or says nothing, and a taken value
    /// is the same indicator when it is written as it is shown.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_list(&bytes);
    }

    #[test]
    fn any_lines_are_read(characters in prop::collection::vec(
        prop::sample::select("abc019.:/@#,\" -\n[]".chars().collect::<Vec<_>>()), 0..120,
    )) {
        check_list(characters.into_iter().collect::<String>().as_bytes());
    }
}

fn check_list(bytes: &[u8]) {
    let list = List::parse(bytes).unwrap();
    assert!(list.len() + list.refused_total() <= bytes.split(|byte| *byte == b'\n').count());
    for (kind, value) in list.values() {
        let named = match kind {
            Kind::Network => "cidr",
            Kind::Address => "ip",
            other => other.name(),
        };
        let again =
            List::parse(format!("{named},\"{}\"", value.replace('"', "\"\"")).as_bytes()).unwrap();
        assert_eq!(again.values().collect::<Vec<_>>(), [(kind, value)], "{again:?}");
    }
}

/// What an indicator takes up: `cargo test … memory_of_an_indicator -- --nocapture` shows it.
#[test]
fn the_memory_of_an_indicator_is_bounded() {
    for (name, line) in [
        (
            "addresses",
            (|n| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)) as fn(u32) -> String,
        ),
        ("domains", |n| format!("c2-{n:08}.evil.example")),
        ("sha256", |n| format!("{n:064x}")),
    ] {
        let count = 200_000u32;
        let text: String = (0..count).map(|n| line(n) + "\n").collect();
        let set = set(&text);
        let each = set.memory_bytes() as f64 / f64::from(count);
        println!("{name}: {each:.1} bytes an indicator");
        assert!(each < 90.0, "{name}: {each}");
    }
}

/// What a row costs beside 100,000 indicators of each of three kinds, on generated events: `-- --nocapture` shows it.
#[test]
fn a_row_costs_little() {
    use palisade_event::decode::{DecodeLimits, FrameBuilder, RequestContext};
    use palisade_event::id::GatewayIdentity;
    use palisade_testkit::streamguard::{Generator, IdStyle};
    let ctx = RequestContext {
        tenant: "default",
        source: "test",
        clock: 1_767_603_600_000_000,
        domain: None,
        gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
        request: 1,
        key: None,
    };
    let mut generator = Generator::new(1, 10_000, IdStyle::StreamGuard);
    let batches: Vec<RecordBatch> = (0..50)
        .map(|_| {
            let mut body = Vec::new();
            generator.fill(4096, &mut body);
            let mut builder = FrameBuilder::new(DecodeLimits::default());
            builder.push_json_body(&ctx, &body);
            builder.finish().unwrap()
        })
        .collect();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let addresses = |n: u32| format!("198.{}.{}.{}\n", n >> 16 & 255, n >> 8 & 255, n & 255);
    let mixed = |n: u32| match n % 3 {
        0 => addresses(n),
        1 => format!("c2-{n}.evil.example\n"),
        _ => format!("{n:064x}\n"),
    };
    let lists: [(&str, &dyn Fn(u32) -> String); 2] = [("addresses", &addresses), ("mixed", &mixed)];
    for (name, line) in lists {
        let set = set(&(0..100_000).map(line).collect::<String>());
        let mut scanner = Scanner::new();
        let mut best = f64::MAX;
        let mut found = 0;
        for _ in 0..5 {
            let begun = std::time::Instant::now();
            found = batches.iter().map(|batch| scanner.scan(&set, batch).len()).sum();
            best = best.min(begun.elapsed().as_secs_f64());
        }
        let nanos = best * 1e9 / rows as f64;
        println!("100,000 {name}: {nanos:.1} ns a row, {found} found in {rows} rows");
        assert!(nanos < 5_000.0, "{nanos}");
    }
}
