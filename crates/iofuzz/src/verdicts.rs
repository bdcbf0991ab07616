//! What an execution came to, in the words of the documents.

use guest_fuzz::engine::{Execution, Incident};
use guest_fuzz::refine::refined;
use guest_fuzz::region::RegionMap;
use guest_fuzz::signature::signature;
use guest_fuzz::verdict::Verdict;

/// The worst that an execution showed.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What it was.
    pub(crate) incident: Incident,
    /// What findings of its cause have in common; empty where it is no finding.
    pub(crate) signature: String,
}

impl Seen {
    /// The worst of `execution`. `map` says what a debug-exit device is.
    pub(crate) fn of(execution: &Execution, map: &RegionMap) -> Self {
        let all = execution.incidents.iter().chain(&execution.end).map(|incident| refined(incident, map));
        let verdict = if execution.resets > 0 { Verdict::GuestReset } else { Verdict::Completed };
        let nothing = Incident { verdict, index: None, instruction: None, trail: Vec::new() };
        let incident = all.fold(
            nothing,
            |worst, incident| {
                if incident.verdict > worst.verdict { incident } else { worst }
            },
        );
        let finding = incident.verdict.is_finding();
        let signature =
            if finding { signature(&incident, execution.death.as_ref(), map) } else { String::new() };
        Self { incident, signature }
    }

    /// Verdict and signature, for comparisons and documents.
    pub(crate) fn names(&self) -> (String, String) {
        (self.incident.verdict.name().to_owned(), self.signature.clone())
    }

    /// What of `execution` is as `verdict` and `signature` say, if anything is; else the worst.
    pub(crate) fn like(execution: &Execution, map: &RegionMap, verdict: &str, signature: &str) -> Self {
        let all = execution.incidents.iter().chain(&execution.end);
        let one = |incident: &Incident| {
            let one = Execution { incidents: vec![incident.clone()], end: None, ..execution.clone() };
            Self::of(&one, map)
        };
        let found = all.map(one).find(|seen| seen.is_like(verdict, signature));
        found.unwrap_or_else(|| Self::of(execution, map))
    }

    /// Whether both are the same, as far as a user is concerned.
    pub(crate) fn is_like(&self, verdict: &str, signature: &str) -> bool {
        self.incident.verdict.name() == verdict && self.signature == signature
    }

    /// The signal that ended the VMM.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self.incident.verdict {
            Verdict::Crash { signal, .. } => signal,
            _ => None,
        }
    }

    /// The status that the VMM ended, or would have ended, itself with.
    pub(crate) fn code(&self) -> Option<i32> {
        match self.incident.verdict {
            Verdict::Crash { code, .. } => code,
            Verdict::DebugExit(code) => Some(code),
            Verdict::Exit => Some(0),
            _ => None,
        }
    }
}
