//! Everything at once.

use fastrand::Rng;

use super::{Access, FanOut, Generator, Looping, Replays, Scans, Trace, Zipf};

/// The other five traces at a quarter of their length, on topics of their own, interleaved so that all end together.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// By what the other traces are divided.
    pub divisor: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { divisor: 4 }
    }
}

impl Mix {
    /// The same with shorter traces.
    #[must_use]
    pub fn divided(self, divisor: u32) -> Self {
        Self {
            divisor: self.divisor * divisor,
        }
    }
}

impl Generator for Mix {
    fn generate(&self, seed: u64) -> Trace {
        let divisor = self.divisor;
        let parts: [Vec<Access>; 5] = [
            FanOut::default().divided(divisor).generate(seed).accesses,
            Replays {
                first_partition: 100,
                ..Replays::default()
            }
            .divided(divisor)
            .generate(seed)
            .accesses,
            Looping {
                first_partition: 200,
                ..Looping::default()
            }
            .divided(divisor)
            .generate(seed)
            .accesses,
            Zipf {
                first_partition: 300,
                ..Zipf::default()
            }
            .divided(divisor)
            .generate(seed)
            .accesses,
            Scans {
                first_partition: 400,
                ..Scans::default()
            }
            .divided(divisor)
            .generate(seed)
            .accesses,
        ];
        Trace {
            name: "mix",
            accesses: interleaved(&parts, &mut Rng::with_seed(seed)),
        }
    }
}

/// Takes a few reads at a time from a part that is chosen by how much of it is left.
fn interleaved(parts: &[Vec<Access>], rng: &mut Rng) -> Vec<Access> {
    let mut rests: Vec<&[Access]> = parts.iter().map(Vec::as_slice).collect();
    let mut accesses = Vec::new();
    loop {
        let left: usize = rests.iter().map(|rest| rest.len()).sum();
        if left == 0 {
            return accesses;
        }
        let mut point = rng.usize(0..left);
        for rest in &mut rests {
            if point < rest.len() {
                let (taken, others) = rest.split_at(rng.usize(1..=8).min(rest.len()));
                accesses.extend_from_slice(taken);
                *rest = others;
                break;
            }
            point -= rest.len();
        }
    }
}
