//! The tail of a weighted truncated sum of surprises, and logarithms that are the same on every machine.
//!
//! Of independent, uniform tail probabilities `pᵢ` only those at most `τ` count:
//! `S = Σ wᵢ · (−ln pᵢ) · [pᵢ ≤ τ]` (a weighted truncated product). Each part is 0 with probability
//! `1 − τ` and otherwise `wᵢ · (−ln τ + X)` with `X` exponentially distributed, so the distribution of
//! `S` is a convolution, made once on a grid with every part rounded up. Real `p` are discrete, hence at
//! least as large as uniform ones, so the tail is an upper bound.

/// `ln x` for finite positive `x`, by sums and products only.
pub(crate) fn ln(x: f64) -> f64 {
    if x <= f64::MIN_POSITIVE {
        return -708.0;
    }
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i64) - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh z; |z| < 0.172, so the next term is below 1e-9.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let q = z * z;
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0))));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * z * series
}

/// `e^x` for `x` of at most 0, by sums and products only.
pub(crate) fn exp(x: f64) -> f64 {
    let small = x / 4096.0;
    let mut value = 1.0 + small * (1.0 + small / 2.0 * (1.0 + small / 3.0 * (1.0 + small / 4.0)));
    for _ in 0..12 {
        value *= value;
    }
    value
}

const STEP: f64 = 1.0 / 16.0;
const STEPS: usize = 640;

/// `−log₁₀ P(S ≥ s)` by `s`, tabulated.
#[derive(Debug)]
pub(crate) struct Tail {
    levels: Vec<f32>,
    slope: f32,
}

impl Tail {
    /// For weights and the greatest probability that counts.
    pub(crate) fn new(weights: &[f64], truncate: f64) -> Self {
        // Probabilities of the cells; what lies beyond the grid gathers in the last.
        let mut sum = vec![0.0; STEPS];
        if let Some(first) = sum.first_mut() {
            *first = 1.0;
        }
        for weight in weights {
            let part = cells(*weight, truncate);
            let mut next = vec![0.0; STEPS];
            for (at, p) in sum.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                for (step, q) in part.iter().enumerate().filter(|(_, q)| **q > 0.0) {
                    if let Some(cell) = next.get_mut((at + step).min(STEPS - 1)) {
                        *cell += p * q;
                    }
                }
            }
            sum = next;
        }
        let mut tail = 0.0;
        let mut levels: Vec<f32> = sum
            .iter()
            .rev()
            .map(|p| {
                tail += p;
                (-ln(tail.clamp(1e-300, 1.0)) / std::f64::consts::LN_10) as f32
            })
            .collect();
        levels.reverse();
        // All of it lies at or above 0, whatever the sum was rounded to.
        if let Some(first) = levels.first_mut() {
            *first = 0.0;
        }
        let greatest = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        Self { levels, slope: (STEP / greatest / std::f64::consts::LN_10) as f32 }
    }

    /// `−log₁₀ P(S ≥ s)`.
    pub(crate) fn level(&self, s: f32) -> f32 {
        let at = (s.max(0.0)) / STEP as f32;
        let index = at as usize;
        match (self.levels.get(index), self.levels.get(index + 1)) {
            (Some(low), Some(high)) => low + (high - low) * (at - index as f32),
            _ => {
                let last = self.levels.last().copied().unwrap_or(0.0);
                last + (at - (STEPS - 1) as f32) * self.slope
            }
        }
    }
}

/// The distribution of one part on the grid.
fn cells(weight: f64, truncate: f64) -> Vec<f64> {
    let begin = -weight * ln(truncate);
    // P(part ≥ s) for s above 0.
    let tail = |s: f64| if s <= begin { truncate } else { exp(-s / weight) };
    let mut cells: Vec<f64> =
        (0..STEPS).map(|at| tail((at as f64 - 1.0) * STEP) - tail(at as f64 * STEP)).collect();
    if let Some(first) = cells.first_mut() {
        *first = 1.0 - truncate;
    }
    if let Some(last) = cells.last_mut() {
        *last = tail((STEPS as f64 - 2.0) * STEP);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_exponential_are_close_to_the_library_s() {
        for i in 1..2000 {
            let x = f64::from(i) / 1000.0;
            assert!((ln(x) - x.ln()).abs() < 1e-8, "ln {x}");
            assert!((exp(-x * 20.0) / (-x * 20.0).exp() - 1.0).abs() < 1e-6, "exp {x}");
        }
        assert!((ln(1e-300) - 1e-300_f64.ln()).abs() < 1e-6);
    }

    /// The closed form against sums of drawn exponentials.
    #[test]
    fn the_tail_is_that_of_drawn_sums() {
        let weights = [0.8, 1.0, 1.0, 1.2];
        let tail = Tail::new(&weights, 0.05);
        let mut state = 7_u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let mut part = |weight: &f64| {
            let p = uniform();
            if p <= 0.05 { -weight * p.ln() } else { 0.0 }
        };
        let draws: Vec<f64> = (0..1_000_000).map(|_| weights.iter().map(&mut part).sum()).collect();
        for s in [2.5, 3.0, 4.0, 6.0, 8.0] {
            let share = draws.iter().filter(|draw| **draw >= s).count() as f64 / draws.len() as f64;
            let level = f64::from(tail.level(s as f32));
            assert!((level + share.log10()).abs() < 0.06, "s {s}: {level} against {share}");
        }
        assert_eq!(tail.level(0.0), 0.0);
        assert!(tail.level(60.0) > tail.level(39.0));
    }
}
