use palisade_detect::threat::ThreatScorer;
use std::collections::BTreeMap;
fn main() {
    let mut scorer = ThreatScorer::new().unwrap();
    let verbose = std::env::var("V").is_ok();
    for path in std::env::args().skip(1) {
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (mut lines, mut found, mut sum) = (0, 0, 0usize);
        let mut by: BTreeMap<String, (usize, String)> = BTreeMap::new();
        let t = std::time::Instant::now();
        let mut alerts = 0;
        for line in text.lines() {
            lines += 1;
            sum += line.len();
            let s = scorer.score_line(line);
            if s.class.is_some() {
                found += 1;
                alerts += usize::from(s.score >= 0.7);
                for r in s.reasons { let e = by.entry(r).or_insert((0, line.chars().take(200).collect())); e.0 += 1; }
            }
        }
        let e = t.elapsed();
        println!("{path}: {found}/{lines} found, {alerts} alerts, {:.0} ns/line ({} B)", e.as_nanos() as f64 / lines as f64, sum / lines.max(1));
        if verbose { for (r, (n, l)) in by { println!("   {n} {r}\n        {l}"); } }
    }
}
