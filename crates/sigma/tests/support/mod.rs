//! The real rules and events beside the project, and batches out of them.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use arrow::array::RecordBatch;
use palisade_event::decode::{DecodeLimits, FrameBuilder, RequestContext};
use palisade_event::id::GatewayIdentity;
use palisade_sigma::{Loader, RuleSet};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The folder of real data; `None`, and a line that says so, when it is not there.
pub fn data(what: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(what);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// The files of a directory, sorted by name.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The regular files of an archive, by path.
pub fn archive(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
    };
    let (mut files, mut long, mut at) = (BTreeMap::new(), None, 0);
    while at + 512 <= bytes.len() && bytes[at] != 0 {
        let header = &bytes[at..at + 512];
        let size = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
        let body = &bytes[at + 512..at + 512 + size];
        let prefix = text(&header[345..500]);
        let mut name = text(&header[..100]);
        if !prefix.is_empty() && &header[257..262] == b"ustar" && header[263] == b'0' {
            name = format!("{prefix}/{name}");
        }
        match header[156] {
            b'L' => long = Some(text(body)),
            b'x' => {
                long = String::from_utf8_lossy(body)
                    .lines()
                    .find_map(|line| line.split_once("path=").map(|(_, path)| path.to_owned()));
            }
            b'0' | 0 => {
                files.insert(long.take().unwrap_or(name), body.to_vec());
            }
            _ => {}
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    files
}

/// The texts of all SigmaHQ rules, by path.
pub fn sigma_hq() -> Option<BTreeMap<String, String>> {
    let dir = data("sigma")?;
    let packed = files(&dir).into_iter().find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sigma-rules-"))
    })?;
    Some(
        archive(&packed)
            .into_iter()
            .filter(|(name, _)| name.ends_with(".yml"))
            .map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap()))
            .collect(),
    )
}

/// All SigmaHQ rules, loaded.
pub fn sigma_hq_rules() -> Option<RuleSet> {
    let mut loader = Loader::default();
    for (name, text) in sigma_hq()? {
        loader.add(&name, &text);
    }
    Some(loader.finish())
}

/// The rules in these texts.
pub fn rules(texts: &[&str]) -> RuleSet {
    let mut loader = Loader::default();
    for (index, text) in texts.iter().enumerate() {
        loader.add(&format!("rule-{index}.yml"), text);
    }
    loader.finish()
}

/// A file's bytes, unpacked.
pub fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    } else {
        std::io::BufReader::new(file).read_to_end(&mut bytes).unwrap();
    }
    bytes
}

/// The records of a body as the rows of one batch.
pub fn batch_with(body: &[u8], limits: DecodeLimits) -> RecordBatch {
    let mut builder = FrameBuilder::new(limits);
    let context = RequestContext {
        tenant: "t",
        source: "test",
        clock: 1_700_000_000_000_000,
        domain: Some("test"),
        gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 0 },
        request: 0,
        key: None,
    };
    let outcome = builder.push_json_body(&context, body);
    assert_eq!(outcome.rejected_total, 0, "{:?}", outcome.rejected);
    builder.finish().unwrap_or_else(|| {
        RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty()))
    })
}

/// The records of a body as the rows of one batch.
pub fn batch(body: &[u8]) -> RecordBatch {
    batch_with(body, DecodeLimits::default())
}

/// The documents of a body, one after the other.
pub fn documents(body: &[u8]) -> Vec<serde_json::Value> {
    serde_json::Deserializer::from_slice(body).into_iter().map(Result::unwrap).collect()
}

/// A file of events: the set it belongs to and its name there, as the oracle calls them.
pub struct Events {
    pub set: &'static str,
    pub name: String,
    pub body: Vec<u8>,
}

/// The event files that the oracle knows.
pub fn oracle_events() -> Option<Vec<Events>> {
    let mut all = Vec::new();
    for dir in files(&data("sigma/regression")?) {
        for path in files(&dir) {
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = format!(
                    "regression/{}/{}",
                    dir.file_name().unwrap().to_string_lossy(),
                    path.file_name().unwrap().to_string_lossy()
                );
                all.push(Events { set: "regression", name, body: read(&path) });
            }
        }
    }
    for (set, folder) in [("otrf", "events-otrf"), ("evtx-mitre", "events-evtx-mitre")] {
        for path in files(&data(folder)?) {
            if path.to_string_lossy().ends_with(".json.gz") {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                all.push(Events { set, name, body: read(&path) });
            }
        }
    }
    Some(all)
}
