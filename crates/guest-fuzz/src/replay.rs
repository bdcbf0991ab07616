//! [`replay`]: a program or a journal, again, on a fresh machine.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::engine::{Execution, Observe, Patience, execute};
use crate::error::{Error, Result};
use crate::generate::{Generator, Prepared};
use crate::instruction::Instruction;
use crate::journal::{Journal, Operations, Part};
use crate::target::Target;

/// The parameter of a journal's source that says, with 0, that the machine was not reset between episodes.
pub(crate) const RESETS: &str = "resets";

/// What can be replayed: instructions, and resets between episodes.
#[derive(Clone, Debug)]
pub struct Recording {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Instructions(Vec<Instruction>),
    Episodes { prepared: Box<Prepared>, seed: u64, parts: Vec<Part>, resets: bool },
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
        Self { source: Source::Episodes { prepared: Box::new(prepared), seed, parts, resets: true } }
    }

    /// The same, and the machine is not reset between episodes.
    #[must_use]
    pub fn without_resets(mut self) -> Self {
        if let Source::Episodes { resets, .. } = &mut self.source {
            *resets = false;
        }
        self
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
                let prepared = generator.prepare(&journal.regions);
                let recording = Self::of_episodes(prepared, source.seed, parts.clone());
                let is_reset = source.parameters.get(RESETS) != Some(&0);
                Ok(if is_reset { recording } else { recording.without_resets() })
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
            Source::Episodes { prepared, seed, parts, .. } => Box::new(parts.iter().flat_map(move |part| {
                prepared
                    .episode(*seed, part.episode)
                    .take(usize::try_from(part.operations).unwrap_or(usize::MAX))
            })),
        }
    }

    /// The same as one program: with the resets between episodes.
    #[must_use]
    pub fn program(&self) -> Vec<Instruction> {
        let Source::Episodes { parts, resets, .. } = &self.source else {
            return self.instructions().collect();
        };
        let mut program = Vec::new();
        let mut instructions = self.instructions();
        for (number, part) in parts.iter().enumerate() {
            if *resets && number > 0 {
                program.push(Instruction::Reset);
            }
            program
                .extend(instructions.by_ref().take(usize::try_from(part.operations).unwrap_or(usize::MAX)));
        }
        program
    }

    /// Has `target`, which is started, execute it, to its end or the machine's. Numbers count from its first instruction.
    ///
    /// # Errors
    /// Where the target fails in a way that is no verdict.
    pub fn execute(
        &self,
        target: &mut dyn Target,
        patience: &Patience,
        observe: Observe<'_>,
    ) -> Result<Execution> {
        let (prepared, seed, parts, resets) = match &self.source {
            Source::Instructions(instructions) => {
                return execute(target, &[], &mut instructions.iter().cloned(), patience, observe);
            }
            Source::Episodes { prepared, seed, parts, resets } => (prepared, *seed, parts, *resets),
        };
        let mut whole = Execution::default();
        for (number, part) in parts.iter().enumerate() {
            let before = if resets && number > 0 { &[Instruction::Reset][..] } else { &[][..] };
            let count = usize::try_from(part.operations).unwrap_or(usize::MAX);
            let mut episode = prepared.episode(seed, part.episode).take(count);
            // What a machine does a while after an episode is seen in the next one.
            let last = number + 1 == parts.len();
            let patience = if last { *patience } else { Patience { settle: Duration::ZERO, ..*patience } };
            whole.append(execute(target, before, &mut episode, &patience, observe)?);
            if whole.end.is_some() || whole.stopped {
                break;
            }
        }
        Ok(whole)
    }
}

/// What replays came to.
#[derive(Clone, Debug)]
pub struct Replays {
    /// How many there were.
    pub runs: u64,
    /// How many showed it.
    pub hits: u64,
    /// The first one that did, or the last one.
    pub execution: Option<Execution>,
}

/// Replays `recording` on a fresh machine `times` times, or as often as it goes before `time` is over.
///
/// # Errors
/// Where a machine does not start.
pub fn replay(
    recording: &Recording,
    times: u64,
    time: Duration,
    start: &dyn Fn() -> Result<Box<dyn Target>>,
    patience: &Patience,
    shows: &dyn Fn(&Execution) -> bool,
) -> Result<Replays> {
    let begun = Instant::now();
    let mut replays = Replays { runs: 0, hits: 0, execution: None };
    while replays.runs < times && (replays.runs == 0 || begun.elapsed() < time) {
        let mut target = start()?;
        let observe = &mut |_: &_| match begun.elapsed() < time {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let execution = recording.execute(target.as_mut(), patience, observe)?;
        let shown = shows(&execution);
        if replays.hits == 0 {
            replays.execution = Some(execution);
        }
        replays.runs += 1;
        replays.hits += u64::from(shown);
    }
    Ok(replays)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::journal::Source;
    use crate::region::{Region, RegionMap, Space};

    #[test]
    fn a_journal_says_whether_there_were_resets_between_its_episodes() {
        let serial = Region::new(Space::Port, 0x3f8, 0x3ff, "serial").unwrap();
        let parts = vec![Part { episode: 0, operations: 3 }, Part { episode: 2, operations: 4 }];
        let resets = |parameters: BTreeMap<String, u64>| {
            let source = Source { generator: "classic".to_owned(), parameters, seed: 1 };
            let journal = Journal {
                source: Some(source),
                regions: RegionMap::from_regions(vec![serial.clone()]),
                ..Journal::new(Operations::Episodes(parts.clone()))
            };
            let program = Recording::of_journal(&journal).unwrap().program();
            let at = |(index, instruction)| (instruction == Instruction::Reset).then_some(index);
            (program.len(), program.into_iter().enumerate().filter_map(at).collect::<Vec<_>>())
        };
        assert_eq!(resets(BTreeMap::new()), (8, vec![3]));
        assert_eq!(resets(BTreeMap::from([(RESETS.to_owned(), 1)])), (8, vec![3]));
        assert_eq!(resets(BTreeMap::from([(RESETS.to_owned(), 0)])), (7, vec![]));
    }
}
