//! The header area on generated images: healthy ones have no finding, broken ones have the right one, and edits do
//! what they say.
#![cfg(feature = "generate")]

#[cfg(test)]
mod header_area {
    use proptest::prelude::*;
    use vdisk_format::error::Reason;
    use vdisk_format::generate::{Bitmap, Qcow2};
    use vdisk_format::qcow2::extension::AreaEnd;
    use vdisk_format::qcow2::{FeatureGroup, Header, Magic, check, edit};
    use vdisk_format::{Plan, bytes::clipped};

    const OURS: Magic = Magic(0x1234_5678);

    fn magics(image: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let header = Header::parse(image).unwrap();
        header.extensions().map(|e| e.unwrap()).map(|e| (e.magic.0, e.data.to_vec())).collect()
    }

    fn applied(image: &[u8], plan: &Plan) -> Vec<u8> {
        let mut after = image.to_vec();
        plan.apply_to(&mut after);
        after
    }

    fn codes(image: &[u8]) -> Vec<&'static str> {
        let header = Header::parse(image).unwrap();
        check::header(&header).findings().iter().map(|finding| finding.code).collect()
    }

    fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn with_everything() -> Vec<u8> {
        Qcow2::new(1 << 20)
            .cluster_bits(12)
            .backing_file("base.qcow2", Some("qcow2"))
            .extension(OURS.0, b"12345".to_vec())
            .bitmap(Bitmap::new("b0").dirty(0..1 << 16))
            .build()
            .unwrap()
    }

    fn shapes() -> impl Strategy<Value = Vec<u8>> {
        (
            (2..=3u32, 9..=16u32, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
            proptest::collection::vec((1..u32::MAX, proptest::collection::vec(any::<u8>(), 0..20)), 0..3),
        )
            .prop_map(|((version, bits, backing, names, bitmaps, zstd), extensions)| {
                let mut image = Qcow2::new(1 << 20).version(version).cluster_bits(bits);
                image = image.feature_name_table(names && version == 3 && bits > 9);
                if backing {
                    image = image.backing_file("a backing file", Some("raw"));
                }
                if bitmaps && version == 3 {
                    image = image.bitmap(Bitmap::new("b").dirty(0..100));
                }
                if zstd && version == 3 {
                    image = image.compression_type(1);
                }
                for (magic, data) in extensions {
                    image = image.extension(magic & 0x0fff_ffff | 1, data);
                }
                image.build().unwrap()
            })
    }

    proptest! {
        #[test]
        fn healthy_images_have_no_finding(image in shapes()) {
            let found = codes(&image);
            // Unknown types may repeat by chance of the draw; nothing else may be found.
            prop_assert!(found.iter().all(|code| *code == "repeated-extension"), "{found:?}");
        }

        #[test]
        fn add_and_delete_are_inverse(image in shapes(), data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let before = magics(&image);
            let name = Header::parse(&image).unwrap().backing_file().map(<[u8]>::to_vec);
            let plan = edit::add_extension(&image, OURS, &data).unwrap();
            let with = applied(&image, &plan);
            let mut expected = before.clone();
            expected.push((OURS.0, data));
            prop_assert_eq!(magics(&with), expected);
            prop_assert_eq!(Header::parse(&with).unwrap().backing_file().map(<[u8]>::to_vec), name.clone());
            let outside = |image: &[u8]| {
                let mut rest = image.to_vec();
                for write in plan.writes() {
                    let at = usize::try_from(write.offset.0).unwrap();
                    rest[at..at + write.new.len()].fill(0);
                }
                rest
            };
            prop_assert_eq!(outside(&image), outside(&with));
            let without = applied(&with, &edit::delete_extensions(&with, OURS).unwrap());
            prop_assert_eq!(magics(&without), before);
            prop_assert_eq!(Header::parse(&without).unwrap().backing_file().map(<[u8]>::to_vec), name);
            prop_assert_eq!(&without, &image, "what the generator laid out, an edit lays out");
        }

        #[test]
        fn mutated_headers_never_panic(
            mut image in shapes(),
            mutations in proptest::collection::vec((0..512usize, any::<u8>()), 1..8),
            magic in proptest::sample::select(vec![OURS, Magic::BITMAPS, Magic::FEATURE_NAME_TABLE]),
        ) {
            for (at, byte) in mutations {
                image[at] = byte;
            }
            let _ = codes(&image);
            for plan in [
                edit::add_extension(&image, magic, b"data"),
                edit::delete_extensions(&image, magic),
                edit::set_feature_bit(&image, FeatureGroup::Autoclear, 63, true),
            ].into_iter().flatten() {
                let mut after = image.clone();
                plan.apply_to(&mut after);
                plan.inverse().apply_to(&mut after);
                prop_assert_eq!(&after, &image);
            }
        }
    }

    #[test]
    fn set_field_changes_its_bytes_and_no_others() {
        let image = with_everything();
        let header = Header::parse(&image).unwrap();
        for (field, old) in header.fields().collect::<Vec<_>>() {
            let plan = edit::set_field(&image, field.name, old ^ 1).unwrap();
            let [write] = plan.writes() else { panic!("{}", field.name) };
            assert_eq!(
                (write.offset.0, write.new.len()),
                (field.offset, field.width as usize),
                "{}",
                field.name
            );
            assert_eq!(Header::parse(&applied(&image, &plan)).unwrap().get(field.name), Some(old ^ 1));
        }
    }

    #[test]
    fn a_field_that_the_version_lacks_is_refused() {
        let image = Qcow2::new(1 << 20).version(2).build().unwrap();
        for name in ["incompatible_features", "header_length", "compression_type", "nonsense"] {
            let error = edit::set_field(&image, name, 1).unwrap_err();
            assert_eq!(error.reason(), Some(Reason::NoSuchField), "{error}");
        }
        let error = edit::set_feature_bit(&image, FeatureGroup::Compatible, 0, true).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NoSuchField), "{error}");
    }

    #[test]
    fn all_extensions_of_a_type_are_deleted() {
        let mut builder = Qcow2::new(1 << 20);
        for index in 0..5u8 {
            builder = builder.extension(OURS.0, vec![index; 9]).extension(7, vec![index]);
        }
        let image = builder.build().unwrap();
        assert_eq!(codes(&image), ["repeated-extension", "repeated-extension"]);
        let after = applied(&image, &edit::delete_extensions(&image, OURS).unwrap());
        assert!(magics(&after).iter().all(|(magic, _)| *magic != OURS.0));
        assert_eq!(magics(&after).len(), magics(&image).len() - 5);
    }

    #[test]
    fn the_bitmaps_bit_goes_with_the_extension() {
        let mut image = with_everything();
        // The directory is gone: far past the end of the file.
        let header = Header::parse(&image).unwrap();
        let bitmaps = header.extensions().flatten().find(|e| e.magic == Magic::BITMAPS).unwrap();
        let at = usize::try_from(bitmaps.data_offset().0).unwrap() + 16;
        put(&mut image, at, &(1u64 << 50).to_be_bytes());
        assert_eq!(codes(&image), ["bitmap-directory-truncated"]);
        let plan = edit::delete_extensions(&image, Magic::BITMAPS).unwrap();
        let after = applied(&image, &plan);
        assert_eq!(Header::parse(&after).unwrap().v3.autoclear_features, 0);
        assert!(codes(&after).is_empty());
        assert_eq!(plan.writes()[0].offset.0, 88, "the bit first");
    }

    #[test]
    fn a_full_first_cluster_is_noticed_before_anything_is_planned() {
        let image = Qcow2::new(1 << 20).cluster_bits(9).feature_name_table(false).build().unwrap();
        let room = 512 - usize::try_from(Header::parse(&image).unwrap().v3.header_length).unwrap() - 16;
        assert!(edit::add_extension(&image, OURS, &vec![1; room]).is_ok());
        let error = edit::add_extension(&image, OURS, &vec![1; room + 1]).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NoRoom), "{error}");
    }

    #[test]
    fn a_missing_end_marker_makes_no_edit_swallow_what_follows() {
        let mut image = Qcow2::new(1 << 20).extension(OURS.0, b"x".to_vec()).build().unwrap();
        let mut walk = Header::parse(&image).unwrap().extensions();
        walk.by_ref().for_each(drop);
        let AreaEnd::Marker(marker) = walk.end() else { panic!() };
        let marker = usize::try_from(marker.0).unwrap();
        put(&mut image, marker, &[0xff; 8]);
        assert_eq!(codes(&image), ["extension-overrun"]);
        let error = edit::add_extension(&image, Magic(9), b"y").unwrap_err();
        assert_eq!(error.reason(), Some(Reason::BadExtensionArea), "{error}");
        // What overruns can be deleted; nothing behind it is touched.
        let plan = edit::delete_extensions(&image, Magic(u32::MAX)).unwrap();
        let after = applied(&image, &plan);
        assert!(codes(&after).is_empty());
        assert_eq!(
            clipped(&after, marker as u64 + 8, u64::MAX),
            clipped(&image, marker as u64 + 8, u64::MAX)
        );
    }

    #[test]
    fn type_0_ends_the_area_and_cannot_be_added() {
        let error = edit::add_extension(&with_everything(), Magic::END, b"").unwrap_err();
        assert_eq!(error.reason(), Some(Reason::OutOfRange));
    }

    #[test]
    fn extensions_that_would_lie_over_the_header_are_refused() {
        let mut image = with_everything();
        for length in [0u32, 72, 96, 103] {
            put(&mut image, 100, &length.to_be_bytes());
            let error = edit::add_extension(&image, OURS, b"").unwrap_err();
            assert_eq!(error.reason(), Some(Reason::BadExtensionArea), "{error}");
        }
    }

    #[test]
    fn each_rule_has_its_code() {
        let healthy = with_everything();
        let length = healthy.len();
        for (at, bytes, code) in [
            (0, &b"QFI\xfa"[..], "magic"),
            (4, &[0, 0, 0, 7], "version"),
            (20, &[0, 0, 0, 40], "cluster-bits"),
            (20, &[0, 0, 0, 99], "cluster-bits"),
            (32, &[0, 0, 0, 3], "crypt-method"),
            (32, &[0, 0, 0, 2], "crypto-header-missing"),
            (96, &[0, 0, 0, 7], "refcount-order"),
            (100, &[0, 0, 0, 108], "header-length"),
            (100, &[0, 1, 0, 0], "header-length"),
            (47, &[1], "unaligned"),
            (16, &[0, 0, 4, 0], "backing-file-size"),
            (8, &[0, 0, 0, 0, 0, 0, 0, 8], "backing-file-place"),
            (8, &[0, 0, 0, 0, 0, 1, 0, 0], "backing-file-place"),
            (72, &[0x80], "unknown-feature"),
            (79, &[1], "dirty"),
            (79, &[2], "corrupt"),
            (79, &[8], "compression-type"),
            (79, &[16], "extended-l2-cluster"),
            (95, &[3], "raw-external-bit"),
        ] {
            let mut image = healthy.clone();
            put(&mut image, at, bytes);
            assert!(codes(&image).contains(&code), "{code}: {:?}", codes(&image));
            assert_eq!(image.len(), length);
        }
        let mut image = Qcow2::new(1 << 20).build().unwrap();
        image[95] = 1;
        assert_eq!(codes(&image), ["bitmaps-bit"]);
    }
}
