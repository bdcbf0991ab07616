//! What happens to a guest, in the seed's order: responsive? alive? a new login, a reset, a new machine.

use std::ops::ControlFlow;
use std::time::Duration;

use guest_fuzz::engine::{Patience, execute};
use guest_fuzz::instruction::{Instruction, PciAddress, PortWidth};
use guest_fuzz::target::{Progress, Recovery, Target};
use guest_fuzz::verdict::Condition;

use crate::guest::{inb, machine, options, outb, read, run, started};

const PATIENCE: Duration = Duration::from_secs(5);

/// Until the guest is in another condition than before.
fn settled(session: &mut dyn Target, wanted: fn(&Condition) -> bool) -> Condition {
    let mut condition = session.condition(PATIENCE);
    for _ in 0..20 {
        if wanted(&condition) {
            break;
        }
        condition = session.condition(Duration::from_millis(500));
    }
    condition
}

#[test]
fn resets_hangs_and_the_end() {
    let mut command = machine("vmlinuz-cloud", "");
    command.arguments.extend(["-device".into(), "pc-testdev".into()]);
    let mut session = started(options(command));
    assert!(session.shares_memory());
    assert_eq!(session.condition(PATIENCE), Condition::Responsive);

    // The guest resets itself: what comes after that is executed when somebody is logged in again.
    let program = [outb(0x80, 1), outb(0x64, 0xfe), inb(0x80), inb(0x80)];
    let mut go_on = |_: &Progress| ControlFlow::Continue(());
    let mut instructions = program.into_iter();
    let patience = Patience::default();
    let execution = execute(&mut session, &[], &mut instructions, &patience, &mut go_on).unwrap();
    assert_eq!((execution.done, execution.resets, execution.reset_points), (4, 1, vec![2]));
    assert_eq!((execution.incidents, execution.end), (vec![], None), "a boot is no hang");
    let progress = session.progress();
    assert_eq!((progress.started, progress.done, progress.resets), (4, 4, 1));
    assert_eq!(session.values().len(), 2);

    // Our program loses its memory, and ends: a hang, and a new login is enough.
    let device = PciAddress::new(0, 2, 0).unwrap();
    let identity = Instruction::PciRead { function: device, register: 0, width: PortWidth::Long };
    assert_eq!(read(&mut session, &[identity]), [0x1110_1af4]);
    let off = Instruction::PciWrite { function: device, register: 4, width: PortWidth::Word, value: 0 };
    session.submit(&[off, inb(0x80), inb(0x80)]).unwrap();
    assert_eq!(settled(&mut session, |c| *c == Condition::GuestSilent), Condition::GuestSilent);
    session.recover(Recovery::Login, Duration::from_secs(30)).unwrap();
    let progress = run(&mut session, &[], PATIENCE);
    assert_eq!(progress.resets, 1, "a login is no reset");
    assert_eq!(session.condition(PATIENCE), Condition::Responsive);

    // From outside.
    session.recover(Recovery::Reset, PATIENCE).unwrap();
    let progress = run(&mut session, &[inb(0x80)], PATIENCE);
    assert_eq!((progress.done, progress.resets), (9, 2));
    assert!(session.shares_memory(), "the reset gave the device back");

    // The end, whose instruction is known.
    let first = progress.done;
    session.submit(&[inb(0x80), inb(0x80), outb(0x2014, 0), inb(0x80)]).unwrap();
    let dead = settled(&mut session, |condition| matches!(condition, Condition::Dead(_)));
    let Condition::Dead(death) = dead else { panic!("{dead:?}") };
    assert_eq!(death.signal, Some(6), "{death:?}");
    let progress = session.progress();
    assert_eq!((progress.started, progress.done), (first + 3, first + 2));
    assert!(session.recover(Recovery::Login, PATIENCE).is_err());
    assert!(session.submit(&[inb(0x80)]).is_err());

    session.start().unwrap();
    assert_eq!(run(&mut session, &[inb(0x80)], PATIENCE).done, 1);
}
