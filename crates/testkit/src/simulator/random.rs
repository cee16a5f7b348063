//! A small generator of random numbers that is the same everywhere (SplitMix64).

/// Random numbers from a seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// Independent numbers for each pair of seed and purpose.
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        Self(random.next() ^ purpose)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from `0..n`; 0 for an `n` of 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Evenly from `from..to`.
    pub(super) fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from).max(1) as u64) as i64
    }

    /// Evenly from `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of the list; small numbers are likelier the higher `skew` is (1 is even).
    pub(super) fn skewed(&mut self, n: u64, skew: u32) -> u64 {
        let mut position = n as f64;
        for _ in 0..skew {
            position *= self.unit();
        }
        (position as u64).min(n.saturating_sub(1))
    }

    /// One of the list, evenly.
    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len() as u64) as usize)
    }

    /// An address of the internet: out of 198.18.0.0/15, which is reserved for tests. Homes, hotels,
    /// visitors, scanners and attackers all have addresses from here.
    pub(super) fn address(&mut self) -> u32 {
        0xc612_0000 | self.below(1 << 17) as u32
    }
}
