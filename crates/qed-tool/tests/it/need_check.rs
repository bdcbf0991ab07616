//! `need_check [on|off]`: the original cannot clear the bit.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{for_each, shapes, small};
use crate::support::program::{QED, json, qed};
use crate::support::qemu;
use test_support::scratch::{Snapshot, scratch};

#[test]
fn every_shape() {
    for_each(&shapes(), |_, image| {
        let before = Bytes::read(image);
        assert_eq!(qed(image, &["need_check"]).expect(0).out(), "False\n");

        QED.edit(image, &["need_check", "on"]);
        let on = Bytes::read(image);
        assert_eq!(before.differences(&on), [at::FEATURES]);
        assert_eq!(on.u64(at::FEATURES), before.u64(at::FEATURES) | 2);
        assert_eq!(qed(image, &["need_check"]).expect(0).out(), "True\n");
        assert_eq!(json(image, &["need_check"]).1["need_check"], true);

        QED.edit(image, &["need-check", "off"]);
        assert!(Bytes::read(image) == before);
        assert_eq!(qed(image, &["need_check"]).expect(0).out(), "False\n");
        assert_eq!(json(image, &["need-check"]).1["need_check"], false);
    });
}

/// QEMU clears the bit when it opens the image for writing.
#[test]
fn qemu_takes_it_for_what_it_is() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let before = Bytes::read(&image);
    QED.edit(&image, &["need_check", "on"]);
    qemu::io(&image, &["read -P 0x11 0 12k"]);
    assert!(Bytes::read(&image) == before, "a QEMU that may write clears the bit");
}

#[test]
fn what_is_so_already_is_left_alone() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let before = Snapshot::of(&image);
    QED.edit(&image, &["need_check", "off"]);
    before.unchanged(&image, "need_check off where it is off");
}

/// Other bits are nobody's business.
#[test]
fn unknown_bits_survive() {
    let folder = scratch();
    let image = small(folder.path(), "image");
    let mut bytes = Bytes::read(&image);
    bytes.put_u64(at::FEATURES, 0xf0f0_f0f0_f0f0_f0f0);
    bytes.write(&image);
    QED.edit(&image, &["need_check", "on"]);
    assert_eq!(Bytes::read(&image).u64(at::FEATURES), 0xf0f0_f0f0_f0f0_f0f2);
    QED.edit(&image, &["need_check", "off"]);
    assert!(Bytes::read(&image) == bytes);
}
