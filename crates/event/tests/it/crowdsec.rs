//! The readers of raw lines against real log files with known answers: every case of `logs-crowdsec`
//! whose log, scenario or parser names ssh, nginx, apache or wordpress. Skipped with a line that says
//! so when the data is not there.

use palisade_event::decode::lines::{Fields, Value, read};
use palisade_event::time::parse_event_time;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Case, log file, family.
const CASES: [(&str, &str, &str); 57] = [
    ("CVE-2017-9841", "CVE-2017-9841.log", "nginx"),
    ("CVE-2022-26134", "CVE-2022-26134.log", "apache"),
    ("CVE-2022-40684", "CVE-2022-40684.log", "nginx"),
    ("CVE-2022-41697", "CVE-2022-41697.log", "nginx"),
    ("CVE-2022-46169", "CVE-2022-46169.log", "apache"),
    ("CVE-2023-22515", "CVE-2023-22515.log", "apache"),
    ("CVE-2024-0012", "CVE-2024-0012.log", "nginx"),
    ("CVE-2024-38475", "CVE-2024-38475.log", "apache"),
    ("CVE-2024-9474", "CVE-2024-9474.log", "nginx"),
    ("actual-budget-whitelist", "actual-budget-logs.log", "nginx"),
    ("apache-guacamole-logs", "apache-guacamole-logs.log", "apache"),
    ("apache2-http-sensitive-files", "apache2-http-sensitive-files.log", "apache"),
    ("apache2-logs", "apache2-logs.log", "apache"),
    ("apache_log4j2_cve-2021-44228", "apache_log4j2_cve-2021-44228.log", "nginx"),
    ("apiscp-bf", "apiscp-bf.log", "apache"),
    ("base-upsun-httplog-logs", "base-upsun-httplog-logs.log", "nginx"),
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
    ("jellyseerr-whitelist", "jellyseerr-logs.log", "nginx"),
    ("jira_cve-2021-26086", "jira_cve-2021-26086.log", "nginx"),
    ("modsecurity-logs-nginx", "modsecurity-logs-nginx.log", "nginx"),
    ("modsecurity-nginx", "modsecurity-nginx.log", "nginx"),
    ("netgear_rce", "netgear_rce.log", "apache"),
    ("nextcloud-whitelist", "nextcloud-whitelist.log", "nginx"),
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
    ("sshd-logs", "sshd-logs.log", "ssh"),
    ("sshd-logs-fp", "sshd-logs.log", "ssh"),
    ("sshd_banner_exchange", "sshd_banner_exchange.log", "ssh"),
    ("unifi-logs", "unifi-logs.log", "ssh"),
    ("vmware-cve-2022-22954", "vmware-cve-2022-22954.log", "nginx"),
    ("vmware-vcenter-vmsa-2021-0027", "vmware-vcenter-vmsa-2021-0027.log", "nginx"),
    ("whitelists", "whitelists.log", "ssh"),
    ("zoneminder_cve-39285", "zoneminder_cve-39285.log", "apache"),
    ("zoneminder_cve-39291", "zoneminder_cve-39291.log", "apache"),
];

/// What no reader knows: answers about other programs, and lines that are no raw lines.
/// `iptables-logs` are kernel messages of a router, the others begin with what is said here.
const NOT_READ: [(&str, &str); 3] = [
    // A JSON record of a shipper, with the line in one of its members.
    ("base-upsun-httplog-logs", ""),
    // Another endlessh, which logs as klog does.
    ("endlessh-logs", "I0613 "),
    ("unifi-logs", "DESCR="),
];

/// 2026-11-21T00:00:00Z.
const CLOCK: i64 = 1_795_219_200_000_000;

fn data(path: &str) -> Option<String> {
    let path: PathBuf = ["../../../shared/data/logs-crowdsec", path].iter().collect();
    Some(String::from_utf8_lossy(&std::fs::read(&path).ok()?).into_owned())
}

/// An answer: stage, index, what (`Meta.source_ip`), value, and whether only its end is meant.
type Answers = BTreeMap<(String, usize), BTreeMap<String, (String, bool)>>;

/// `results["s01-parse"]["author/nginx-logs"][3].Evt.Meta["http_path"] == "/"`
fn answers(text: &str) -> Answers {
    let mut all = Answers::new();
    for line in text.lines() {
        let inner = || {
            let rest = line.strip_prefix("results[\"")?;
            let (stage, rest) = rest.split_once("\"][\"")?;
            let (parser, rest) = rest.split_once("\"][")?;
            let (index, rest) = rest.split_once("].Evt.")?;
            let (kind, rest) = rest.split_once("[\"")?;
            let (name, rest) = rest.split_once("\"]")?;
            let (part, value) = rest.split_once(" == \"")?;
            let value = value.strip_suffix('"')?.replace("\\\"", "\"").replace("\\\\", "\\");
            let stage = format!("{stage} {parser}");
            Some((stage, index.parse().ok()?, format!("{kind}.{name}"), value, !part.is_empty()))
        };
        if let Some((stage, index, name, value, part)) = inner() {
            all.entry((stage, index)).or_default().insert(name, (value, part));
        }
    }
    all
}

/// The columns that answer a question of theirs.
fn columns(stage: &str, name: &str) -> &'static [&'static str] {
    let ssh = stage.contains("sshd-logs");
    match name {
        "Meta.source_ip" | "Parsed.remote_addr" | "Parsed.clientip" => &["src_ip"],
        "Meta.target_user" | "Meta.username" | "Parsed.auth" | "Parsed.remote_user" => &["user"],
        "Meta.http_path" => &["url"],
        // A later stage of theirs cuts the query off.
        "Parsed.request" => &["url", "url.path"],
        "Meta.http_status" | "Parsed.status" | "Parsed.response" => &["http.response.status_code"],
        "Meta.http_verb" | "Parsed.verb" => &["http.request.method"],
        "Meta.http_user_agent" | "Parsed.http_user_agent" => &["user_agent"],
        "Parsed.http_version" | "Parsed.httpversion" => &["http.version"],
        "Parsed.bytes" | "Parsed.body_bytes_sent" => &["http.response.body.bytes"],
        "Parsed.http_referer" | "Parsed.referrer" => &["http.request.referrer"],
        "Meta.machine" => &["host"],
        "Meta.target_fqdn" | "Parsed.target_fqdn" => &["url.domain", "server.address"],
        "Meta.timestamp" => &["time"],
        "Meta.rule_id" => &["rule.id"],
        "Meta.modsec_message" => &["rule.name"],
        "Parsed.clientport" | "Parsed.sshd_port" => &["src_port"],
        "Parsed.loglevel" => &["log.level"],
        "Parsed.errorcode" => &["error.code"],
        "Parsed.program" if ssh => &["syslog.appname"],
        "Parsed.pid" if ssh => &["syslog.procid"],
        _ => &[],
    }
}

fn is_right(fields: &Fields<'_>, column: &str, (wanted, end): &(String, bool)) -> bool {
    match fields.get(column) {
        None => matches!(wanted.as_str(), "" | "-"),
        Some(Value::Part(text) | Value::Word(text)) => text == wanted,
        Some(Value::Int(number)) => number.to_string() == *wanted,
        // Answers without a year; theirs are of the year of their run.
        Some(Value::Time(micros)) => {
            let year = if *end { "2026" } else { "" };
            let wanted = parse_event_time(&format!("{year}{wanted}"), CLOCK);
            wanted.is_some_and(|wanted| wanted / 1_000_000 == micros / 1_000_000)
        }
    }
}

#[test]
fn asserted_fields_come_out_right() {
    if data("LICENSE").is_none() {
        println!("skipped: ../shared/data/logs-crowdsec is not there");
        return;
    }
    let mut count = BTreeMap::<&str, [usize; 5]>::new();
    let mut wrong = Vec::new();
    for (case, log, family) in CASES {
        let log = data(&format!("{case}/{log}")).unwrap();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let read: Vec<_> = lines.iter().map(|line| read(line, CLOCK)).collect();
        let [cases, all, known, asserted, right] = count.entry(family).or_default();
        *cases += 1;
        *all += lines.len();
        *known += read.iter().filter(|fields| !fields.is_empty()).count();
        let answers = answers(&data(&format!("{case}/parser.assert")).unwrap_or_default());
        for ((stage, index), answer) in &answers {
            let Some((message, _)) = answer.get("Parsed.message") else { continue };
            let stamp = answer.get("Parsed.timestamp").map_or("", |(stamp, _)| stamp);
            // The first stage only cuts the header off, and its answers are repeated by the later ones.
            if stage.starts_with("s00") {
                continue;
            }
            let ours = |line: &&str| line.trim_end().ends_with(message.trim_end());
            let candidates: Vec<usize> = (0..lines.len()).filter(|at| ours(&lines[*at])).collect();
            let found = candidates
                .iter()
                .find(|at| lines[**at].contains(stamp))
                .or(candidates.first())
                .map(|at| &read[*at]);
            for (name, value) in answer {
                let columns = columns(stage, name);
                if columns.is_empty() {
                    continue;
                }
                *asserted += 1;
                if found.is_some_and(|f| columns.iter().any(|column| is_right(f, column, value))) {
                    *right += 1;
                } else if !NOT_READ
                    .iter()
                    .any(|(c, start)| *c == case && message.starts_with(start))
                {
                    wrong.push(format!("{case} {stage} {index} {name}: {value:?}"));
                }
            }
        }
    }
    for (family, [cases, lines, known, asserted, right]) in &count {
        println!(
            "{family}: {cases} cases, {known} of {lines} lines read, {right} of {asserted} asserted fields right"
        );
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let [.., asserted, right] = count.values().fold([0; 5], |mut sum, of| {
        sum.iter_mut().zip(of).for_each(|(sum, of)| *sum += of);
        sum
    });
    assert!(asserted > 2_000 && right * 100 > asserted * 97, "{right} of {asserted}");
}
