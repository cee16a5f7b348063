//! Raw lines: reading never fails, names no field twice, gives only parts of the line, and leaves the
//! line whole in a row that keeps every field.

use crate::{CLOCK, CTX};
use palisade_event::decode::lines::{Value, read, read_message};
use palisade_event::decode::{DecodeLimits, FrameBuilder};

const PROGRAMS: [&str; 8] =
    ["", "sshd", "nginx", "apache2", "wordpress(x)", "endlessh", "sudo", "other"];

pub fn run(data: &[u8]) {
    let Some(([program], rest)) = crate::steer::<1>(data) else { return };
    let Ok(line) = std::str::from_utf8(rest) else { return };
    let program = PROGRAMS[usize::from(program) % PROGRAMS.len()];
    for fields in [read(line, CLOCK), read_message(program, line, CLOCK)] {
        let mut names: Vec<_> = fields.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name twice: {names:?}");
        let text = line.as_bytes().as_ptr_range();
        for (_, value) in fields.iter() {
            if let Value::Part(part) = value {
                let part = part.as_bytes().as_ptr_range();
                assert!(text.start <= part.start && part.end <= text.end);
            }
        }
    }
    let mut builder = FrameBuilder::new(DecodeLimits::default());
    let taken = builder.push_line(&CTX, 0, line);
    assert_eq!(taken.is_ok(), !line.is_empty());
    if let Some(batch) = builder.finish() {
        let row = crate::sent_rows(&batch).pop().unwrap_or_default();
        let row: serde_json::Value = serde_json::from_str(&row).expect("a row is JSON");
        assert_eq!(row["message"], line);
    }
}
