//! [`replay`]: a program or a journal, again, on a fresh machine.

use std::ops::ControlFlow;

use crate::engine::{Execution, Patience, execute};
use crate::error::{Error, Result};
use crate::generate::{Generator, Prepared};
use crate::instruction::Instruction;
use crate::journal::{Journal, Operations, Part};
use crate::target::Target;

/// What can be replayed: instructions, and resets between episodes.
#[derive(Clone, Debug)]
pub struct Recording {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Instructions(Vec<Instruction>),
    Episodes { prepared: Box<Prepared>, seed: u64, parts: Vec<Part> },
}

impl Recording {
    /// Instructions, as they are.
    #[must_use]
    pub fn of_instructions(instructions: Vec<Instruction>) -> Self {
        Self { source: Source::Instructions(instructions) }
    }

    /// Beginnings of episodes. Between two of them, the machine is reset.
    #[must_use]
    pub fn of_episodes(prepared: Prepared, seed: u64, parts: Vec<Part>) -> Self {
        Self { source: Source::Episodes { prepared: Box::new(prepared), seed, parts } }
    }

    /// What a journal says was executed.
    ///
    /// # Errors
    /// [`Error::Syntax`] where it names episodes and no generator, or one that is not known.
    pub fn of_journal(journal: &Journal) -> Result<Self> {
        match (&journal.operations, &journal.source) {
            (Operations::Instructions(instructions), _) => Ok(Self::of_instructions(instructions.clone())),
            (Operations::Episodes(parts), Some(source)) => {
                let generator: Generator = source.generator.parse()?;
                Ok(Self::of_episodes(generator.prepare(&journal.regions), source.seed, parts.clone()))
            }
            (Operations::Episodes(_), None) => Err(Error::Syntax {
                what: "journal".to_owned(),
                line: 1,
                expected: "a source for its episodes".to_owned(),
                found: "none".to_owned(),
            }),
        }
    }

    /// All instructions, in order. Those with which a campaign resets the machine between two episodes are not in it.
    pub fn instructions(&self) -> Box<dyn Iterator<Item = Instruction> + '_> {
        match &self.source {
            Source::Instructions(instructions) => Box::new(instructions.iter().cloned()),
            Source::Episodes { prepared, seed, parts } => Box::new(parts.iter().flat_map(move |part| {
                prepared
                    .episode(*seed, part.episode)
                    .take(usize::try_from(part.operations).unwrap_or(usize::MAX))
            })),
        }
    }

    /// Has `target`, which is started, execute it, to its end or the machine's. Numbers count from its first instruction.
    ///
    /// # Errors
    /// Where the target fails in a way that is no verdict.
    pub fn execute(&self, target: &mut dyn Target, patience: &Patience) -> Result<Execution> {
        let observe = &mut |_: &_| ControlFlow::Continue(());
        let (prepared, seed, parts) = match &self.source {
            Source::Instructions(instructions) => {
                return execute(target, &[], &mut instructions.iter().cloned(), patience, observe);
            }
            Source::Episodes { prepared, seed, parts } => (prepared, *seed, parts),
        };
        let mut whole = Execution::default();
        for (number, part) in parts.iter().enumerate() {
            let before = if number == 0 { &[][..] } else { &[Instruction::Reset][..] };
            let count = usize::try_from(part.operations).unwrap_or(usize::MAX);
            let mut episode = prepared.episode(seed, part.episode).take(count);
            // What a machine does a while after an episode is seen in the next one.
            let last = number + 1 == parts.len();
            let patience =
                if last { *patience } else { Patience { settle: std::time::Duration::ZERO, ..*patience } };
            whole.append(execute(target, before, &mut episode, &patience, observe)?);
            if whole.end.is_some() {
                break;
            }
        }
        Ok(whole)
    }
}

/// Replays `recording` on a fresh machine `times` times, and returns how often `shows` was so, with the first execution
/// for which it was, or the last one.
///
/// # Errors
/// Where a machine does not start.
pub fn replay(
    recording: &Recording,
    times: u64,
    start: &dyn Fn() -> Result<Box<dyn Target>>,
    patience: &Patience,
    shows: &dyn Fn(&Execution) -> bool,
) -> Result<(u64, Option<Execution>)> {
    let mut hits = 0;
    let mut kept = None;
    for _ in 0..times {
        let mut target = start()?;
        let execution = recording.execute(target.as_mut(), patience)?;
        let shown = shows(&execution);
        if hits == 0 {
            kept = Some(execution);
        }
        hits += u64::from(shown);
    }
    Ok((hits, kept))
}
