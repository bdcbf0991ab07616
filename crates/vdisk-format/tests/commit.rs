//! Commits, crashes and undo, on real files: a crash is a `Commit` dropped half-way, or a torn write made by hand.

#[cfg(test)]
mod commit {
    use std::fs;
    use std::path::PathBuf;

    use proptest::prelude::*;
    use vdisk_format::error::{Error, Reason};
    use vdisk_format::plan::Commit;
    use vdisk_format::undo::{Progress, UndoPlace, read_plan};
    use vdisk_format::{Image, Plan, qcow2};

    /// A folder in memory where there is one: every commit syncs three times.
    fn folder() -> tempfile::TempDir {
        let shm = PathBuf::from("/dev/shm");
        if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
    }

    struct Case {
        dir: tempfile::TempDir,
        before: Vec<u8>,
        after: Vec<u8>,
        plan: Plan,
    }

    impl Case {
        fn new(before: &[u8], writes: &[(u64, Vec<u8>)]) -> Self {
            let mut plan = Plan::new(before);
            for (index, (at, new)) in writes.iter().enumerate() {
                let _ = plan.set(before, *at, new, format!("write {index}"));
            }
            let mut after = before.to_vec();
            plan.apply_to(&mut after);
            let case = Self { dir: folder(), before: before.to_vec(), after, plan };
            fs::write(case.path(), before).unwrap();
            case
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("image")
        }

        fn place(&self) -> UndoPlace {
            UndoPlace::beside(&self.path()).unwrap()
        }

        fn open(&self) -> Image {
            Image::options().write(true).open(&self.path()).unwrap()
        }

        fn bytes(&self) -> Vec<u8> {
            fs::read(self.path()).unwrap()
        }

        fn commit(&self) -> Result<(), Error> {
            self.plan.commit(self.open(), Some(&self.place()), qcow2::fingerprint)
        }

        fn undo(&self) -> Result<(), Error> {
            let record = self.place().last()?.expect("a record");
            record.undo(self.open(), qcow2::fingerprint, false)
        }

        /// Ends the commit after `steps` writes, and tears the next one after `torn` bytes.
        fn crash(&self, steps: usize, torn: usize) {
            let mut commit = Commit::begin(self.open(), &self.plan, Some(&self.place())).unwrap();
            for _ in 0..steps {
                commit.step().unwrap();
            }
            drop(commit);
            if let Some(write) = self.plan.writes().get(steps) {
                let mut bytes = self.bytes();
                let torn = torn % (write.new.len() + 1);
                let end = usize::try_from(write.offset.0).unwrap() + torn;
                if torn > 0 {
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[end - torn..end].copy_from_slice(&write.new[..torn]);
                    fs::write(self.path(), bytes).unwrap();
                }
            }
        }
    }

    fn writes() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        proptest::collection::vec((0..700u64, proptest::collection::vec(any::<u8>(), 1..60)), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn undo_gives_the_identical_file(before in proptest::collection::vec(any::<u8>(), 0..600), writes in writes()) {
            let case = Case::new(&before, &writes);
            case.commit().unwrap();
            prop_assert_eq!(case.bytes(), &case.after[..]);
            if !case.plan.is_empty() {
                case.undo().unwrap();
            }
            prop_assert_eq!(case.bytes(), &case.before[..]);
            prop_assert_eq!(fs::read_dir(case.dir.path()).unwrap().count(), 1, "no record is left");
        }

        #[test]
        fn a_crash_anywhere_can_be_undone_or_completed(
            before in proptest::collection::vec(any::<u8>(), 0..600),
            writes in writes(),
            steps in 0..6usize,
            torn: usize,
        ) {
            let case = Case::new(&before, &writes);
            prop_assume!(!case.plan.is_empty());
            case.crash(steps, torn);
            case.undo().unwrap();
            prop_assert_eq!(case.bytes(), &case.before[..]);

            case.crash(steps, torn);
            prop_assert!(case.plan.complete(case.open(), Some(&case.place()), qcow2::fingerprint).unwrap());
            prop_assert_eq!(case.bytes(), &case.after[..]);
            // The record of the interrupted commit was completed, not doubled.
            prop_assert_eq!(case.place().records().unwrap().len(), 1);
            case.undo().unwrap();
            prop_assert_eq!(case.bytes(), &case.before[..]);
        }
    }

    fn two_writes() -> Case {
        Case::new(&[0; 256], &[(8, vec![1; 8]), (100, vec![2; 8])])
    }

    #[test]
    fn a_stale_plan_is_refused_and_nothing_is_written() {
        let case = two_writes();
        let mut other = case.before.clone();
        other[103] = 9;
        fs::write(case.path(), &other).unwrap();
        assert_eq!(case.commit().unwrap_err().reason(), Some(Reason::Stale));
        assert_eq!(case.bytes(), other);
        assert_eq!(case.place().records().unwrap().len(), 0);
    }

    #[test]
    fn another_change_waits_until_an_interrupted_commit_is_settled() {
        let case = two_writes();
        case.crash(1, 0);
        let bytes = case.bytes();
        let mut plan = Plan::new(&bytes);
        plan.set(&bytes, 200, &[3], "another".to_owned()).unwrap();
        let commit = || plan.commit(case.open(), Some(&case.place()), qcow2::fingerprint);
        assert_eq!(commit().unwrap_err().reason(), Some(Reason::Interrupted));
        assert_eq!(case.bytes(), bytes);
        case.undo().unwrap();
        let bytes = case.bytes();
        let mut plan = Plan::new(&bytes);
        plan.set(&bytes, 200, &[3], "another".to_owned()).unwrap();
        plan.commit(case.open(), Some(&case.place()), qcow2::fingerprint).unwrap();
    }

    #[test]
    fn a_commit_that_wrote_nothing_stands_in_nobodys_way() {
        let case = two_writes();
        case.crash(0, 0);
        case.commit().unwrap();
        assert_eq!(case.place().records().unwrap().len(), 1);
        case.undo().unwrap();
        assert_eq!(case.bytes(), case.before);
    }

    #[test]
    fn an_image_used_since_is_not_undone_without_force() {
        let case = two_writes();
        case.commit().unwrap();
        // Not one of the plan's bytes, but one of the first cluster.
        let mut used = case.bytes();
        used[50] ^= 1;
        fs::write(case.path(), &used).unwrap();
        assert_eq!(case.undo().unwrap_err().reason(), Some(Reason::DoesNotFit));
        assert_eq!(case.bytes(), used);
        let record = case.place().last().unwrap().unwrap();
        record.undo(case.open(), qcow2::fingerprint, true).unwrap();
        let mut expected = case.before.clone();
        expected[50] ^= 1;
        assert_eq!(case.bytes(), expected);
    }

    #[test]
    fn a_torn_last_line_of_a_record_counts_as_not_written() {
        let case = two_writes();
        case.commit().unwrap();
        let record = case.place().last().unwrap().unwrap();
        assert!(matches!(record.progress(), Progress::Committed { length: 256, .. }));
        let text = fs::read_to_string(record.path()).unwrap();
        fs::write(record.path(), &text[..text.len() - 4]).unwrap();
        let record = case.place().last().unwrap().unwrap();
        assert!(record.is_unfinished());
        record.undo(case.open(), qcow2::fingerprint, false).unwrap();
        assert_eq!(case.bytes(), case.before);
    }

    #[test]
    fn records_are_a_stack() {
        let case = two_writes();
        let mut contents = vec![case.bytes()];
        for byte in 1..=12u8 {
            let now = case.bytes();
            let mut plan = Plan::new(&now);
            plan.set(&now, u64::from(byte) * 3, &[byte; 5], format!("change {byte}")).unwrap();
            plan.commit(case.open(), Some(&case.place()), qcow2::fingerprint).unwrap();
            contents.push(case.bytes());
        }
        while let Some(expected) = contents.pop() {
            assert_eq!(case.bytes(), expected);
            if !contents.is_empty() {
                case.undo().unwrap();
            }
        }
        assert!(case.place().last().unwrap().is_none());
    }

    #[test]
    fn an_image_open_for_reading_is_not_written() {
        let case = two_writes();
        let image = Image::open(case.path()).unwrap();
        let error = case.plan.commit(image, Some(&case.place()), qcow2::fingerprint).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert_eq!(case.bytes(), case.before);
    }

    #[test]
    fn a_plan_of_no_change_leaves_no_record() {
        let case = Case::new(&[7; 64], &[(0, vec![7; 8])]);
        case.commit().unwrap();
        assert_eq!(case.place().records().unwrap().len(), 0);
    }

    #[test]
    fn plans_are_read_back_from_files() {
        let case = two_writes();
        let file = case.dir.path().join("plan");
        fs::write(&file, case.plan.to_text()).unwrap();
        assert_eq!(read_plan(&file).unwrap(), case.plan);
        let error = read_plan(case.dir.path()).unwrap_err().to_string();
        assert!(error.contains("expected a file"), "{error}");
    }

    #[test]
    fn a_forced_undo_leaves_a_file_that_grew_since_its_length() {
        let case = two_writes();
        case.commit().unwrap();
        let mut grown = case.bytes();
        grown.resize(5000, 7);
        fs::write(case.path(), &grown).unwrap();
        assert_eq!(case.undo().unwrap_err().reason(), Some(Reason::DoesNotFit));
        case.place().last().unwrap().unwrap().undo(case.open(), qcow2::fingerprint, true).unwrap();
        grown[..256].copy_from_slice(&case.before);
        assert_eq!(case.bytes(), grown);
    }

    #[test]
    fn a_commit_without_a_record_is_completed_and_its_undo_starts_from_there() {
        let case = two_writes();
        let mut torn = case.before.clone();
        torn[8..12].fill(1);
        fs::write(case.path(), &torn).unwrap();
        assert!(case.plan.complete(case.open(), Some(&case.place()), qcow2::fingerprint).unwrap());
        assert_eq!(case.bytes(), case.after);
        case.undo().unwrap();
        assert_eq!(case.bytes(), torn, "what was there before this command");
    }

    #[test]
    fn a_mixture_that_no_interruption_leaves_is_stale() {
        let case = two_writes();
        for mixture in [vec![(12, 1u8)], vec![(100, 2)], vec![(8, 1), (100, 2)]] {
            let mut image = case.before.clone();
            for (at, byte) in mixture {
                image[at] = byte;
            }
            fs::write(case.path(), &image).unwrap();
            let error = case.plan.complete(case.open(), Some(&case.place()), qcow2::fingerprint).unwrap_err();
            assert_eq!(error.reason(), Some(Reason::Stale), "{error}");
            assert_eq!(case.bytes(), image);
            assert_eq!(case.place().records().unwrap().len(), 0);
        }
    }

    #[test]
    fn a_complete_commit_that_was_not_sealed_stands_in_nobodys_way() {
        let case = two_writes();
        case.crash(2, 0);
        let now = case.bytes();
        let mut plan = Plan::new(&now);
        plan.set(&now, 200, &[3], "another".to_owned()).unwrap();
        plan.commit(case.open(), Some(&case.place()), qcow2::fingerprint).unwrap();
        case.undo().unwrap();
        case.undo().unwrap();
        assert_eq!(case.bytes(), case.before);
    }

    #[test]
    fn a_record_can_be_applied_again() {
        let case = two_writes();
        case.crash(1, 3);
        let record = case.place().last().unwrap().unwrap();
        assert_eq!(read_plan(record.path()).unwrap(), case.plan);
    }

    #[test]
    fn names_that_only_look_like_records_are_nobodys() {
        let case = two_writes();
        for name in ["undo-+3", "undo-03", "undo-18446744073709551615", "undo-1.tmp", "undo-", "undo-x"] {
            fs::write(case.dir.path().join(format!("image.{name}")), "x").unwrap();
        }
        case.commit().unwrap();
        let record = case.place().last().unwrap().unwrap();
        assert!(record.path().ends_with("image.undo-1"), "{record:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_place_of_a_record_is_not_followed() {
        let case = two_writes();
        let precious = case.dir.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, case.dir.path().join("image.undo-1.tmp")).unwrap();
        case.commit().unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(!case.place().last().unwrap().unwrap().path().is_symlink());
    }

    #[test]
    fn an_undo_folder_is_made_by_its_first_record() {
        let case = two_writes();
        let dir = case.dir.path().join("a/b");
        let place = UndoPlace::in_dir(&dir, &case.path()).unwrap();
        assert!(place.last().unwrap().is_none() && !dir.exists());
        case.plan.commit(case.open(), Some(&place), qcow2::fingerprint).unwrap();
        assert_eq!(place.records().unwrap().len(), 1);
    }

    #[test]
    fn a_plan_of_a_length_that_no_write_explains_is_refused() {
        let plan = Plan::new(b"").to_text();
        let body =
            plan.split("end ").next().unwrap().replace("new-length 0", "new-length 1152921504606846976");
        let digest = twox_hash::XxHash3_64::oneshot(body.as_bytes());
        let error = Plan::from_text(&format!("{body}end {digest:016x}\n"), "test").unwrap_err();
        assert_eq!(error.reason(), Some(Reason::BadPlan), "{error}");
    }
}
