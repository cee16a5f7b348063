//! The shipped rules against real logs with known answers: every case of `logs-crowdsec` whose log,
//! scenario or parser names ssh, nginx, apache or wordpress and that says which address triggers what.
//! Skipped with a line that says so when the data is not there.
//!
//! [`measure`] takes a function from records to alerts: the peer's evaluator, which proves the rules and thresholds
//! apart from our own engine, and our own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

use palisade_event::RecordId;
use palisade_event::column::Text;
use palisade_event::decode::lines::{Value as Found, read};
use palisade_event::decode::{DecodeLimits, FrameBuilder, RequestContext};
use palisade_event::id::GatewayIdentity;
use palisade_event::slot::SLOTS;
use palisade_sigma::correlation::{Hit, HitKind, Options, Range, group_slot, group_values, hunt};
use palisade_sigma::{Book, Hits};
use rsigma_eval::event::JsonEvent;
use rsigma_eval::result::ResultBody;
use rsigma_eval::{CorrelationConfig, CorrelationEngine};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Case, log file, family.
const CASES: [(&str, &str, &str); 46] = [
    ("CVE-2017-9841", "CVE-2017-9841.log", "nginx"),
    ("CVE-2022-26134", "CVE-2022-26134.log", "apache"),
    ("CVE-2022-40684", "CVE-2022-40684.log", "nginx"),
    ("CVE-2022-41697", "CVE-2022-41697.log", "nginx"),
    ("CVE-2022-46169", "CVE-2022-46169.log", "apache"),
    ("CVE-2023-22515", "CVE-2023-22515.log", "apache"),
    ("CVE-2024-0012", "CVE-2024-0012.log", "nginx"),
    ("CVE-2024-38475", "CVE-2024-38475.log", "apache"),
    ("CVE-2024-9474", "CVE-2024-9474.log", "nginx"),
    ("apache2-http-sensitive-files", "apache2-http-sensitive-files.log", "apache"),
    ("apache_log4j2_cve-2021-44228", "apache_log4j2_cve-2021-44228.log", "nginx"),
    ("apiscp-bf", "apiscp-bf.log", "apache"),
    ("cve-2021-42013", "cve-2021-42013.log", "apache"),
    ("cve-2023-49103", "cve-2023-49103.log", "nginx"),
    ("cve_2022_37042", "cve_2022_37042.log", "nginx"),
    ("endlessh-logs", "endlessh-logs.log", "ssh"),
    ("endlessh-syslogs", "endlessh-logs.log", "ssh"),
    ("f5-big-ip-cve-2020-5902", "f5-big-ip-cve-2020-5902.log", "nginx"),
    ("fortinet-cve-2018-13379", "fortinet-cve-2018-13379.log", "nginx"),
    ("grafana_cve-2021-43798", "grafana_cve-2021-43798.log", "nginx"),
    ("http-cve-probing", "http-cve-probing.log", "nginx"),
    ("http-dos-invalid-http-versions", "http-dos-invalid-http-versions.log", "nginx"),
    ("http-technology-probing", "http-technology-probing.log", "nginx"),
    ("http-wordpress_user-enum", "http-wordpress_user-enum.log", "wordpress"),
    ("http-wordpress_wpconfig", "http-wordpress_wpconfig.log", "wordpress"),
    ("ipv6-postoverflow", "ipv6-postoverflow.log", "nginx"),
    ("jira_cve-2021-26086", "jira_cve-2021-26086.log", "nginx"),
    ("modsecurity-nginx", "modsecurity-nginx.log", "nginx"),
    ("netgear_rce", "netgear_rce.log", "apache"),
    ("nginx-cve-2021-41773", "cve-2021-41773.log", "nginx"),
    ("nginx-http-generic-bf", "nginx-http-generic-bf.log", "nginx"),
    ("nginx-http-malformed", "nginx_http-logs.log", "nginx"),
    ("nginx-http-open-proxy", "nginx-http-open-proxy.log", "nginx"),
    ("nginx-http-path-traversal", "nginx-http-path-traversal.log", "nginx"),
    ("nginx-http-sensitive-files", "nginx-http-sensitive-files.log", "nginx"),
    ("nginx-mail-bf", "nginx-mail-bf.log", "nginx"),
    ("spring4shell_cve-2022-22965", "spring4shell_cve-2022-22965.log", "nginx"),
    ("ssh-slow-bf", "ssh-slow-bf.log", "ssh"),
    ("ssh-time-based-bf", "ssh-time-based-bf.log", "ssh"),
    ("sshd-bad-keyexchange-bf", "sshd-bad-keyexchange-bf.log", "ssh"),
    ("sshd-invalid-bf", "sshd-invalid-bf.log", "ssh"),
    ("sshd_banner_exchange", "sshd_banner_exchange.log", "ssh"),
    ("vmware-cve-2022-22954", "vmware-cve-2022-22954.log", "nginx"),
    ("vmware-vcenter-vmsa-2021-0027", "vmware-vcenter-vmsa-2021-0027.log", "nginx"),
    ("zoneminder_cve-39285", "zoneminder_cve-39285.log", "apache"),
    ("zoneminder_cve-39291", "zoneminder_cve-39291.log", "apache"),
];

/// Which of our rules (by name) find a scenario; one of them is enough.
const RULES_OF: [(&str, &[&str]); 47] = [
    ("LePresidente/http-generic-401-bf", &["web_unauthorized_repeated"]),
    ("baudneo/zoneminder_cve-2022-39285", &["web_cve_2022_39285"]),
    ("baudneo/zoneminder_cve-2022-39291", &["web_cve_2022_39291"]),
    ("crowdsecurity/CVE-2017-9841", &["web_cve_2017_9841"]),
    ("crowdsecurity/CVE-2022-26134", &["web_cve_2022_26134"]),
    ("crowdsecurity/CVE-2022-37042", &["web_cve_2022_37042"]),
    ("crowdsecurity/CVE-2022-41697", &["web_cve_2022_41697"]),
    ("crowdsecurity/CVE-2022-46169-bf", &["web_cve_2022_46169_probing"]),
    ("crowdsecurity/CVE-2022-46169-cmd", &["web_cve_2022_46169"]),
    ("crowdsecurity/CVE-2023-22515", &["web_cve_2023_22515"]),
    ("crowdsecurity/CVE-2023-49103", &["web_cve_2023_49103"]),
    ("crowdsecurity/CVE-2024-0012", &["web_cve_2024_0012"]),
    ("crowdsecurity/CVE-2024-38475", &["web_encoded_question_mark_probing"]),
    ("crowdsecurity/CVE-2024-9474", &["web_cve_2024_9474"]),
    ("crowdsecurity/apache_log4j2_cve-2021-44228", &["web_cve_2021_44228"]),
    ("crowdsecurity/endlessh-bf", &["ssh_tarpit"]),
    ("crowdsecurity/f5-big-ip-cve-2020-5902", &["web_cve_2020_5902"]),
    ("crowdsecurity/fortinet-cve-2018-13379", &["web_cve_2018_13379"]),
    ("crowdsecurity/fortinet-cve-2022-40684", &["web_cve_2022_40684"]),
    ("crowdsecurity/grafana-cve-2021-43798", &["web_cve_2021_43798"]),
    ("crowdsecurity/http-apiscp-bf", &["web_login_form_brute_force"]),
    ("crowdsecurity/http-bad-user-agent", &["web_scanner"]),
    ("crowdsecurity/http-cve-2021-41773", &["web_cve_2021_41773"]),
    ("crowdsecurity/http-cve-2021-42013", &["web_cve_2021_42013"]),
    ("crowdsecurity/http-cve-probing", &["web_cve_probing"]),
    ("crowdsecurity/http-dos-invalid-http-versions", &["web_invalid_version"]),
    ("crowdsecurity/http-generic-bf", &["web_login_brute_force"]),
    ("crowdsecurity/http-open-proxy", &["web_open_proxy"]),
    ("crowdsecurity/http-path-traversal-probing", &["web_path_traversal_probing"]),
    ("crowdsecurity/http-probing", &["web_probing"]),
    ("crowdsecurity/http-sensitive-files", &["web_sensitive_file_probing"]),
    ("crowdsecurity/http-technology-probing", &["web_technology"]),
    ("crowdsecurity/http-wordpress_user-enum", &["wordpress_user_enumeration"]),
    ("crowdsecurity/http-wordpress_wpconfig", &["wordpress_configuration_probing"]),
    ("crowdsecurity/jira_cve-2021-26086", &["web_cve_2021_26086"]),
    ("crowdsecurity/modsecurity", &["web_modsecurity"]),
    ("crowdsecurity/netgear_rce", &["web_netgear_setup"]),
    ("crowdsecurity/spring4shell_cve-2022-22965", &["web_cve_2022_22965"]),
    (
        "crowdsecurity/ssh-bf",
        &["ssh_brute_force", "ssh_closed_before_login_repeated", "ssh_probing"],
    ),
    ("crowdsecurity/ssh-slow-bf", &["ssh_slow_brute_force"]),
    ("crowdsecurity/ssh-time-based-bf", &["ssh_slow_unknown_users"]),
    ("crowdsecurity/ssh-time-based-bf_user-enum", &["ssh_slow_user_enumeration"]),
    ("crowdsecurity/vmware-cve-2022-22954", &["web_cve_2022_22954"]),
    ("crowdsecurity/vmware-vcenter-vmsa-2021-0027", &["web_vmsa_2021_0027"]),
    ("hitech95/email-generic-bf", &["mail_login_brute_force"]),
    ("hitech95/email-user-bf", &["mail_user_enumeration"]),
    ("lepresidente/ssh-bad-keyexchange-bf", &["ssh_no_common_algorithm_repeated"]),
];

/// 2026-11-21T00:00:00Z.
const CLOCK: i64 = 1_795_219_200_000_000;

/// A record and its time, in microseconds since the epoch.
type Record = (i64, Value);
/// Names of rules and the address that each alert is about.
type Alerts = BTreeSet<(String, String)>;

fn data(path: &str) -> Option<String> {
    let path: PathBuf = ["../../../shared/data/logs-crowdsec", path].iter().collect();
    Some(String::from_utf8_lossy(&std::fs::read(&path).ok()?).into_owned())
}

/// The records of a log file, in the order of their times.
fn records(log: &str) -> Vec<Record> {
    let mut records: Vec<_> = log
        .lines()
        .map(|line| {
            let fields = read(line, CLOCK);
            let mut record = Map::new();
            let mut time = CLOCK;
            for (name, value) in fields.iter() {
                let value = match value {
                    Found::Part(text) | Found::Word(text) => text.into(),
                    Found::Int(number) => number.into(),
                    Found::Time(micros) => {
                        time = micros;
                        continue;
                    }
                };
                record.insert(name.to_owned(), value);
            }
            record.insert("message".to_owned(), line.into());
            (time, Value::from(record))
        })
        .collect();
    records.sort_by_key(|(time, _)| *time);
    records
}

/// Scenario and address of each answer.
fn asserted(case: &str) -> Vec<(String, String)> {
    let text = data(&format!("{case}/scenario.assert")).unwrap_or_default();
    let (mut scenarios, mut sources) = (BTreeMap::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for line in text.lines() {
        let inner = || {
            let (index, rest) = line.strip_prefix("results[")?.split_once("].Overflow.")?;
            let (what, value) = rest.split_once(" == \"")?;
            Some((index, what, value.strip_suffix('"')?))
        };
        match inner() {
            Some((index, "Alert.GetScenario()", scenario)) => {
                scenarios.insert(index.to_owned(), scenario.to_owned());
            }
            Some((index, what, address)) if what.ends_with("\"].IP") => {
                sources.entry(index.to_owned()).or_default().insert(address.to_owned());
            }
            _ => {}
        }
    }
    let of = |(index, scenario): (String, String)| {
        let sources = sources.get(&index).cloned().unwrap_or_default();
        sources.into_iter().map(move |source| (scenario.clone(), source))
    };
    scenarios.into_iter().flat_map(of).collect()
}

/// Lets every case's records become alerts and compares them with its answers: all must be found, and
/// no alert may be about an address that the case does not name.
fn measure(alerts: &mut dyn FnMut(&[Record]) -> Alerts) {
    if data("LICENSE").is_none() {
        println!("skipped: ../shared/data/logs-crowdsec is not there");
        return;
    }
    let mut count = BTreeMap::<&str, [usize; 4]>::new();
    let (mut missed, mut wrong) = (Vec::new(), Vec::new());
    for (case, log, family) in CASES {
        let alerts = alerts(&records(&data(&format!("{case}/{log}")).unwrap()));
        let asserted = asserted(case);
        assert!(!asserted.is_empty(), "{case} has no answers");
        let [cases, all, found, more] = count.entry(family).or_default();
        *cases += 1;
        for (scenario, address) in &asserted {
            let (_, rules) = RULES_OF.iter().find(|(name, _)| name == scenario).unwrap();
            *all += 1;
            if rules.iter().any(|rule| alerts.contains(&((*rule).to_owned(), address.clone()))) {
                *found += 1;
            } else {
                missed.push(format!("{case}: {scenario} of {address}"));
            }
        }
        for (rule, address) in alerts {
            if asserted.iter().any(|(_, source)| *source == address) {
                let known = asserted.iter().any(|(scenario, source)| {
                    *source == address
                        && RULES_OF
                            .iter()
                            .any(|(s, of)| s == scenario && of.contains(&rule.as_str()))
                });
                *more += usize::from(!known);
            } else {
                wrong.push(format!("{case}: {rule} of {address}"));
            }
        }
    }
    for (family, [cases, all, found, more]) in &count {
        println!(
            "{family}: {cases} cases, {found} of {all} asserted scenarios found, {more} further alerts about their addresses"
        );
    }
    assert!(missed.is_empty() && wrong.is_empty(), "missed: {missed:#?}\nfalse: {wrong:#?}");
}

/// The shipped rules of a folder, as texts.
fn shipped(folder: &Path, texts: &mut Vec<String>) {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            shipped(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "yml")
            && !path.to_string_lossy().ends_with(".test.yml")
        {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

fn rules() -> Vec<String> {
    let mut texts = Vec::new();
    shipped(Path::new("../../rules"), &mut texts);
    texts
}

/// The peer as the function from records to alerts.
fn peer(records: &[Record]) -> Alerts {
    let mut engine = CorrelationEngine::new(CorrelationConfig::default());
    let mut name_of = BTreeMap::new();
    // What stands only under a correlation is no alert of its own.
    let mut beneath = BTreeSet::new();
    for text in rules() {
        for rule in text.split("---\n") {
            let part = |key: &str| {
                rule.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned()
            };
            name_of.insert(part("id: "), part("name: "));
        }
        let collection = rsigma_parser::parse_sigma_yaml(&text).unwrap();
        beneath.extend(collection.correlations.iter().flat_map(|rule| rule.rules.clone()));
        engine.add_collection(&collection).unwrap();
    }
    let mut alerts = Alerts::new();
    for (time, record) in records {
        for result in engine.process_event_at(&JsonEvent::borrow(record), time / 1_000_000) {
            let address = match &result.body {
                ResultBody::Detection(_) => record["src_ip"].as_str().map(str::to_owned),
                ResultBody::Correlation(body) => {
                    body.group_key.iter().find(|(k, _)| k == "src_ip").map(|(_, v)| v.clone())
                }
            };
            let name = name_of[&result.header.rule_id.unwrap()].clone();
            if matches!(result.body, ResultBody::Correlation(_)) || !beneath.contains(&name) {
                alerts.insert((name, address.unwrap_or_default()));
            }
        }
    }
    alerts
}

/// Our own matcher and correlations as that function.
fn ours(records: &[(i64, Value)]) -> Alerts {
    let texts = rules();
    let named: Vec<String> = (0..texts.len()).map(|n| format!("{n}.yml")).collect();
    let book = Book::read(named.iter().map(String::as_str).zip(texts.iter().map(String::as_str)));
    assert!(book.refused().is_empty(), "{:?}", book.refused());
    let mut body = Vec::new();
    for (time, record) in records {
        let mut record = record.clone();
        record["timestamp"] = (*time).into();
        serde_json::to_writer(&mut body, &record).unwrap();
    }
    let mut builder = FrameBuilder::new(DecodeLimits::default());
    let context = RequestContext {
        tenant: "t",
        source: "test",
        clock: CLOCK,
        domain: Some("test"),
        gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 0 },
        request: 0,
        key: None,
    };
    assert_eq!(builder.push_json_body(&context, &body).rejected_total, 0);
    let batch = builder.finish().unwrap();
    let address = |row: usize| {
        let addresses = Text::in_batch(&batch, "src_ip");
        addresses.and_then(|text| text.get(row)).unwrap_or_default().to_owned()
    };
    let mut hits = Hits::new();
    book.matcher().matches(&batch, &mut hits);
    let mut alerts = Alerts::new();
    for (row, rule) in hits.iter().filter(|(_, rule)| book.makes_alerts(*rule)) {
        alerts.insert((book.rule(rule).unwrap().name.clone().unwrap(), address(row)));
    }
    let counted = book.counted(&batch, &hits);
    let counted: Vec<_> = counted
        .iter()
        .map(|counted| Hit {
            correlation: counted.correlation,
            input: counted.input,
            tenant: "t",
            domain: "test",
            slot: group_slot("t", &counted.group, SLOTS),
            group: &counted.group,
            record: RecordId((counted.row as u128).to_be_bytes()),
            time: records[counted.row].0,
            clock: CLOCK,
            value: counted.value,
            kind: HitKind::Record,
        })
        .collect();
    let options = (SLOTS, Options::default());
    for alert in hunt(book.correlations(), counted, Range::default(), options) {
        let correlation = book.correlations().get(alert.correlation).unwrap();
        let place = correlation.group_by.iter().position(|name| name == "src_ip");
        let values = group_values(&alert.group);
        let address = place
            .map_or(String::new(), |place| String::from_utf8_lossy(values[place]).into_owned());
        alerts.insert((correlation.name.clone().unwrap(), address));
    }
    alerts
}

#[test]
fn the_peer_finds_every_asserted_scenario_and_no_other_address() {
    measure(&mut peer);
}

#[test]
fn we_find_every_asserted_scenario_and_no_other_address() {
    measure(&mut ours);
}

#[test]
fn shipped_rules_load_and_have_names_and_ids_of_their_own() {
    let (mut ids, mut names, mut count) = (BTreeSet::new(), BTreeSet::new(), 0);
    for text in rules() {
        let collection = rsigma_parser::parse_sigma_yaml(&text).unwrap();
        assert!(collection.errors.is_empty(), "{:?}", collection.errors);
        count += collection.rules.len() + collection.correlations.len();
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                assert!(ids.insert(id.to_owned()), "{id} twice");
            }
            if let Some(name) = line.strip_prefix("name: ") {
                assert!(names.insert(name.to_owned()), "{name} twice");
            }
        }
    }
    assert!(count > 70 && ids.len() == count && names.len() == count, "{count} rules");
}
