//! Entropy norms of sources: what is read and written again reads the same, and going on works.

use palisade_detect::threat::SourceNorms;

pub fn run(data: &[u8]) {
    let Ok(mut norms) = SourceNorms::restore(data, 100) else { return };
    let written = norms.snapshot();
    let again = SourceNorms::restore(&written, 100).expect("what was written is read");
    assert_eq!(again, norms);
    assert_eq!(again.snapshot(), written);
    norms.on_tick();
    norms.on_tick();
    let _ = norms.norm("a", "b");
    let _ = norms.snapshot();
}
