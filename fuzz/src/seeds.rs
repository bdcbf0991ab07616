//! Inputs from which fuzzing starts, the same ones each time.

use vdisk_format::Plan;

use crate::enumerate;
use crate::guest;
use crate::healthy;
use crate::input::Input;
use crate::qed;

/// Seeds for the target called `name`: images, texts, programs, or streams of choices, whatever the target reads.
#[must_use]
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut random = Xorshift::new(0x5eed);
    let mut choices = move |length| random.bytes(length);
    match name {
        "header" => (0..24).map(|_| healthy::image(&mut Input::new(&choices(8)))).collect(),
        "qed_parse" => (0..24).map(|_| qed_image(&choices(256))).collect(),
        "plan_text" => (0..24).map(|writes| plan_text(&choices(256), writes % 6)).collect(),
        "instruction_text" | "instruction_binary" | "journal" => {
            (0..24).map(|index| guest::seed(name, &choices(64 + 32 * index))).collect()
        }
        "proc_ioports" | "mtree" | "region_file" => {
            (0..24).map(|lines| enumerate::texts(name, &choices(1 + lines))).collect()
        }
        _ => (0..64).map(|index| choices(16 + 16 * index)).collect(),
    }
}

/// The image of QED that a target makes of `choices`.
#[must_use]
pub fn qed_image(choices: &[u8]) -> Vec<u8> {
    qed::image(&mut Input::new(choices))
}

fn plan_text(choices: &[u8], writes: u8) -> Vec<u8> {
    let mut input = Input::new(choices);
    let image = input.take(128);
    let mut plan = Plan::new(image);
    for index in 0..writes {
        let at = input.below(140) as u64;
        // One that overlaps another is left out.
        let _ = plan.set(image, at, input.take(12), format!("write {index}"));
    }
    let mut text = plan.to_text();
    if input.flag() {
        // Without its last line: the target makes it whole again, whatever the fuzzer changed above.
        text.truncate(text.rfind("end ").unwrap_or(text.len()));
    }
    text.into_bytes()
}

/// Marsaglia's xorshift64*: enough to choose seeds, and the same on every machine.
#[derive(Debug)]
pub struct Xorshift(u64);

impl Xorshift {
    /// A stream that `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // From 0 the stream would be zeros; a multiplication spreads small seeds over all bits.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() >> 33).unwrap_or(0).checked_rem(end).unwrap_or(0)
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number().to_be_bytes()).map(|[byte, ..]| byte).collect()
    }
}
