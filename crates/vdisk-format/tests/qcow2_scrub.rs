//! Scrubbed copies: a check finds the same in them, and of the guest there is not a byte. Of images of every kind, sound and
//! damaged, filled with canaries.
//!
//! `VDISK_SEED` replays a run, `VDISK_SCRUBS` says how many images are made, `VDISK_CANARIES` how many canaries are hidden.
#![cfg(feature = "generate")]

#[cfg(test)]
mod qcow2_scrub {
    use std::collections::HashSet;
    use std::env;

    use vdisk_format::check::Check;
    use vdisk_format::generate::{Bitmap, Luks, Order, Qcow2, Snapshot};
    use vdisk_format::qcow2::bitmap::BitmapsExtension;
    use vdisk_format::qcow2::check::check;
    use vdisk_format::qcow2::extension::AreaEnd;
    use vdisk_format::qcow2::scrub::{Options, Scrubbed, audit, scrub};
    use vdisk_format::qcow2::{Content, Header, Tables};
    use vdisk_format::report::{Finding, Report};

    /// Marsaglia's xorshift64*.
    struct Random(u64);

    impl Random {
        fn new(seed: u64) -> Self {
            Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd) | 1)
        }

        fn number(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        fn below(&mut self, end: u64) -> u64 {
            (self.number() >> 20) % end.max(1)
        }

        fn flag(&mut self) -> bool {
            self.below(2) == 0
        }
    }

    fn setting(name: &str, default: u64) -> u64 {
        env::var(name).map_or(default, |value| value.parse().unwrap())
    }

    /// A canary is found by so many of its bytes.
    const TELLING: usize = 6;
    const UNKNOWN: u32 = 0x1234_5678;
    /// Bytes of canaries, behind which they are repeated.
    const MOST_NEW: u64 = 16 << 10;
    /// Names are canaries, too.
    const NAME: &str = "GuestDatGuestDat";

    /// What a guest stored, in these tests: eight bytes each, no two alike. Letters, or any bytes.
    struct Canaries {
        random: Random,
        parts: HashSet<[u8; TELLING]>,
        count: u64,
    }

    impl Canaries {
        fn new(random: &mut Random) -> Self {
            let mut canaries = Self { random: Random::new(random.number()), parts: HashSet::new(), count: 0 };
            canaries.hide(NAME.as_bytes());
            canaries
        }

        fn bytes(&mut self, length: u64) -> Vec<u8> {
            let mut bytes = Vec::new();
            while bytes.len() < length.min(MOST_NEW) as usize {
                let mut canary = self.random.number().to_be_bytes();
                if self.random.flag() {
                    canary.iter_mut().for_each(|byte| *byte = b'A' + *byte % 58);
                }
                bytes.extend(canary);
            }
            self.hide(&bytes);
            bytes.into_iter().cycle().take(length as usize).collect()
        }

        /// Has each eight of `bytes` looked for.
        fn hide(&mut self, bytes: &[u8]) {
            for canary in bytes.chunks_exact(8) {
                // A part with few bytes that are not zero may be anything; 1, 2, 3 and so on is what stands in for refcounts.
                let counts = |part: &[u8]| part.windows(2).all(|two| two[1].wrapping_sub(two[0]) == 1);
                let telling = canary.windows(TELLING).filter(|part| !part.contains(&0) && !counts(part));
                self.parts.extend(telling.map(|part| <[u8; TELLING]>::try_from(part).unwrap()));
                self.count += 1;
            }
        }

        /// Where a part of a canary is, at any alignment.
        fn find(&self, copy: &[u8]) -> Option<usize> {
            const ZEROES: [u8; 512] = [0; 512];
            let blocks = (0..copy.len()).step_by(512);
            let used = blocks.filter(|&at| !ZEROES.starts_with(&copy[at..copy.len().min(at + 512)]));
            used.flat_map(|at| at..at + 512).find(|&at| {
                copy.get(at..at + TELLING).is_some_and(|part| part[0] != 0 && self.parts.contains(part))
            })
        }
    }

    fn copy(image: &[u8], options: Options) -> Option<(Vec<u8>, Scrubbed)> {
        let mut copy = vec![0; image.len()];
        let scrubbed = scrub(image, options, |at, bytes| {
            copy[at as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        });
        assert_eq!(scrubbed.is_err(), Header::parse(image).is_err(), "{scrubbed:?}");
        let scrubbed = scrubbed.ok()?;
        let found = audit(&copy, &scrubbed);
        assert!(found.is_sound(), "{found:?}");
        assert_eq!(found.bytes(), copy.iter().filter(|&&byte| byte != 0).count() as u64);
        Some((copy, scrubbed))
    }

    /// Everything but the values that are wrong: `found`, and where that is a value itself, the offset.
    fn told(mut check: Check, image: &[u8]) -> (Check, Vec<Finding>) {
        let size = Tables::new(image).map_or(0, |tables| {
            tables.geometry().virtual_size().saturating_add(tables.geometry().cluster_size())
        });
        let mut findings = check.report.findings().to_vec();
        for finding in &mut findings {
            finding.found.clear();
            // Whatever lies behind the end of the file is nowhere.
            finding.offset = finding.offset.0.min(image.len() as u64).into();
            // With one refcount, or another: how much is expected is told, not what was found.
            let is_value = matches!(
                finding.code,
                "bitmap-data-outside"
                    | "bitmap-table-outside"
                    | "bitmap-directory-outside"
                    | "bitmap-directory-truncated"
                    | "bitmap-table"
                    | "extension-truncated"
                    | "crypto-header-outside"
                    | "snapshot-l1-outside"
            );
            if is_value {
                finding.offset = 0.into();
            }
            if matches!(
                finding.code,
                "l2-entry-copied"
                    | "l1-entry-copied"
                    | "bitmap-directory-size"
                    | "crypto-header-outside"
                    | "snapshot-l1-size"
            ) {
                finding.expected.clear();
            }
        }
        check.report = Report::default();
        // Names are not copied.
        (check.snapshots, check.bitmaps) = Default::default();
        // How far behind the end of the disk is the guest's business.
        check.last_in_data_file = check.last_in_data_file.map(|last| last.min(size));
        (check, findings)
    }

    /// An image with canaries for data, in 512-byte steps and closer, and in what is between structures.
    fn image(random: &mut Random) -> (Vec<u8>, Canaries) {
        let mut canaries = Canaries::new(random);
        let bits = *[9, 9, 10, 12, 12, 14, 16].get(random.below(7) as usize).unwrap();
        let cluster = 1u64 << bits;
        let size = cluster * (20 + random.below(200)) + random.below(2) * 512;
        let v2 = random.below(8) == 0;
        let mut disk = Qcow2::new(size).cluster_bits(bits);
        if v2 {
            disk = disk.version(2);
        } else {
            disk = disk.refcount_order(random.below(7) as u32);
            disk = disk.extended_l2(bits >= 14 && random.flag());
            disk = disk.feature_name_table(random.flag() && bits > 10);
            if random.below(3) == 0 {
                disk = disk.compression_type(1);
            }
            if random.below(3) == 0 {
                disk = disk.extension(UNKNOWN, canaries.bytes(24));
            }
        }
        disk = disk.order(match random.below(3) {
            0 => Order::InOrder,
            1 => Order::TablesFirst,
            _ => Order::Random(random.number()),
        });
        let data_file = !v2 && random.below(8) == 0;
        if data_file {
            disk = disk.data_file(NAME, random.flag());
        }
        if random.below(4) == 0 && !data_file {
            disk = disk.backing_file(NAME, Some("qcow2"));
        }
        if !v2 && bits >= 12 && random.below(4) == 0 && !data_file {
            disk = disk.luks(Luks::new(random.number()).key_slots(1 + random.below(8) as u32));
        }
        for step in 0..1 + random.below(4) {
            for _ in 0..1 + random.below(3) {
                let at = random.below(size / cluster) * cluster;
                let length = (cluster * (1 + random.below(12))).min(size - at);
                disk = match random.below(8) {
                    0 if !v2 => disk.zero(at..at + length / cluster * cluster),
                    1 if !v2 => disk.zero_preallocated(at..at + length / cluster * cluster),
                    2 | 3 if !data_file => disk.compressed(at, compressible(canaries.bytes(length), cluster)),
                    _ => disk.data(at, canaries.bytes(length)),
                };
            }
            if !data_file && random.flag() {
                disk = disk.snapshot(Snapshot::new(step.to_string(), NAME).icount(random.below(1 << 40)));
            }
        }
        if !v2 {
            for number in 0..random.below(4) {
                let start = random.below(size / 512) * 512;
                let granularity = 9 + random.below(4) as u8;
                disk = disk.bitmap(
                    Bitmap::new(format!("{NAME}{number}"))
                        .granularity_bits(granularity)
                        .dirty(start..(start + random.below(size)).min(size)),
                );
            }
        }
        // Shared clusters may not fit narrow refcounts.
        let mut image = disk.build().or_else(|_| disk.refcount_order(4).build()).unwrap();
        fill_slack(&mut image, random, &mut canaries);
        (image, canaries)
    }

    /// Canaries, and zeroes that make each cluster of them shorter.
    fn compressible(mut bytes: Vec<u8>, cluster: u64) -> Vec<u8> {
        bytes.chunks_mut(cluster as usize).for_each(|part| {
            let half = part.len() / 2;
            part[half..].fill(0);
        });
        bytes
    }

    /// Canaries behind tables, behind the header, and in clusters that nobody has.
    fn fill_slack(image: &mut Vec<u8>, random: &mut Random, canaries: &mut Canaries) {
        let mut places = Vec::new();
        {
            let tables = Tables::new(&*image).unwrap();
            let cluster = tables.geometry().cluster_size();
            let mut behind = |at: u64| places.push(at..at.next_multiple_of(cluster));
            let mut extensions = tables.header().extensions();
            let directory =
                extensions.by_ref().filter_map(Result::ok).find_map(|extension| match extension.content() {
                    Ok(Content::Bitmaps(bitmaps)) => Some(bitmaps.directory_area()),
                    _ => None,
                });
            extensions.by_ref().for_each(drop);
            if let (AreaEnd::Marker(at), None) = (extensions.end(), tables.header().backing_file()) {
                behind(at.0 + 8);
            }
            behind(tables.geometry().l1_table().end());
            let mut snapshots = tables.snapshots();
            for snapshot in snapshots.by_ref() {
                behind(snapshot.unwrap().l1_table().end());
            }
            if snapshots.area().length > 0 {
                behind(snapshots.area().end());
            }
            directory.iter().for_each(|directory| behind(directory.end()));
            for pointer in tables.header().extensions().filter_map(Result::ok) {
                if let Ok(Content::CryptoHeader(pointer)) = pointer.content() {
                    let bytes = &image[pointer.offset as usize..][..pointer.length as usize];
                    // Digest, salts and key material.
                    canaries.hide(&bytes[112..164]);
                    (0..8).for_each(|slot| canaries.hide(&bytes[216 + 48 * slot..][..32]));
                    canaries.hide(&bytes[592..]);
                }
            }
            image.resize(image.len() + (random.below(4) * cluster) as usize, 0xff);
            let end = image.len() as u64;
            places.push(end - end % cluster..end);
        }
        for place in places {
            if place.end <= image.len() as u64 {
                let canaries = canaries.bytes(place.end - place.start);
                image[place.start as usize..place.end as usize].copy_from_slice(&canaries);
            }
        }
    }

    fn be(image: &[u8], at: usize) -> u64 {
        image.get(at..at + 8).map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
    }

    /// The offsets of words of tables, those in use more often.
    fn words(image: &[u8]) -> Vec<u64> {
        let Ok(tables) = Tables::new(image) else { return Vec::new() };
        let mut words = Vec::new();
        let geometry = tables.geometry();
        let l1 = geometry.l1_table();
        let mut areas = vec![l1];
        areas.extend(tables.snapshots().map_while(Result::ok).map(|snapshot| snapshot.l1_table()));
        for area in areas.into_iter().take(20) {
            words.extend([area.offset.0, area.offset.0 + 8]);
            for (index, entry) in tables.l1_entries(area).take(50) {
                words.push(area.offset.0 + index * 8);
                let size = geometry.l2_entry_size();
                let entries = tables.l2_entries(entry.l2_table()).take(30);
                words.extend(entries.map(|(index, _)| entry.l2_table().0 + index * size));
            }
        }
        for (index, entry) in tables.refcount_table_entries().take(20) {
            words.push(geometry.refcount_table().offset.0 + index * 8);
            words.extend((0..8).filter_map(|word| entry.block().0.checked_add(word * 8)));
        }
        let mut snapshots = tables.snapshots();
        snapshots.by_ref().take(20).for_each(drop);
        let area = snapshots.area();
        words.extend((area.offset.0..area.end()).step_by(8).take(40));
        for extension in tables.header().extensions().take(20).map_while(Result::ok) {
            words.extend([extension.offset.0, extension.data_offset().0]);
            match extension.content() {
                Ok(Content::Bitmaps(bitmaps)) => {
                    let area = bitmaps.directory_area();
                    words.extend((area.offset.0..area.end()).step_by(8).take(20));
                    for bitmap in bitmaps.directory(image).take(9).map_while(Result::ok) {
                        words.push(bitmap.fixed.bitmap_table_offset);
                    }
                }
                Ok(Content::CryptoHeader(pointer)) => {
                    words.extend((0..80).filter_map(|word| pointer.offset.checked_add(word * 8)));
                }
                _ => {}
            }
        }
        words.retain(|&at| at <= image.len() as u64 - 8);
        words
    }

    fn damage(image: &mut Vec<u8>, random: &mut Random, canaries: &mut Canaries) {
        for _ in 0..1 + random.below(4) {
            if image.len() < 200 {
                return;
            }
            let length = image.len() as u64;
            let cluster = Tables::new(&*image).map_or(512, |tables| tables.geometry().cluster_size());
            let words = words(image);
            let clusters = length / cluster + 2;
            let mut at = if words.is_empty() { 0 } else { words[random.below(words.len() as u64) as usize] };
            if random.below(5) == 0 {
                at = (at + 8 * random.below(20)).min(length - 8);
            }
            let old = be(image, at as usize);
            let other = if words.is_empty() {
                0
            } else {
                be(image, words[random.below(words.len() as u64) as usize] as usize)
            };
            let flag = random.below(2) << 63;
            let value = match random.below(16) {
                0 => 0,
                1 => 1,
                2 => random.number(),
                3 | 4 => other,
                5 => old.wrapping_add(cluster),
                6 => old ^ 1 << random.below(64),
                7 => old ^ 1 << random.below(64),
                8 => flag | (random.below(clusters) * cluster + random.below(cluster) / 512 * 512),
                // The header's fields are copied, whatever they are.
                9 if at >= 112 => be(&canaries.bytes(8), 0),
                9 => random.number(),
                10 => flag | ((clusters + random.below(9)) * cluster),
                11 => 1 << 62 | random.below(length),
                _ => flag | (random.below(clusters) * cluster),
            };
            match random.below(12) {
                0..7 => image[at as usize..][..8].copy_from_slice(&value.to_be_bytes()),
                7 | 8 => {
                    let fields = [8, 16, 24, 36, 40, 48, 56, 60, 64, 72, 80, 88, 96, 100, 104];
                    let field = fields[random.below(15) as usize];
                    let value =
                        [value, random.below(clusters) * cluster, random.below(100), 1 << random.below(64)];
                    let value = value[random.below(4) as usize].to_be_bytes();
                    if random.flag() || field + 8 > 104 {
                        image[field..][..4].copy_from_slice(&value[4..]);
                    } else {
                        image[field..][..8].copy_from_slice(&value);
                    }
                }
                9 => {
                    let bit = if random.flag() { random.below(112 * 8) } else { random.below(length * 8) };
                    image[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                10 => {
                    // A cluster of one kind over another.
                    let (from, to) = (random.below(clusters) * cluster, random.below(clusters) * cluster);
                    if from.max(to) + cluster <= length {
                        image.copy_within(from as usize..(from + cluster) as usize, to as usize);
                    }
                }
                _ if random.below(3) == 0 => {
                    let cut = random.below(length);
                    image.truncate(cut as usize);
                }
                _ => {}
            }
        }
    }

    /// Scrubs `image`, and fails where there is a canary in the copy. Whether a check finds the same in it.
    #[track_caller]
    fn scrubbed(image: &[u8], canaries: &Canaries, what: &str) -> bool {
        let Some((copy, scrubbed)) = copy(image, Options::default()) else { return true };
        // The header's fields are copied, whatever they are.
        let at = canaries.find(copy.get(112..).unwrap_or_default()).map(|at| at + 112);
        let (before, after) = (told(check(image).unwrap(), image), told(check(&copy).unwrap(), image));
        if before != after {
            eprintln!(
                "{what}: a check finds something else, {} words unsettled",
                scrubbed.redacted.unsettled
            );
            for finding in before.1.iter().filter(|finding| !after.1.contains(finding)).take(5) {
                eprintln!("- {finding}");
            }
            for finding in after.1.iter().filter(|finding| !before.1.contains(finding)).take(5) {
                eprintln!("+ {finding}");
            }
            if before.0 != after.0 {
                eprintln!("{:?}\n{:?}", before.0, after.0);
            }
        }
        if let (true, Ok(folder)) = (at.is_some() || before != after, env::var("VDISK_KEEP")) {
            std::fs::write(format!("{folder}/bad.qcow2"), image).unwrap();
            std::fs::write(format!("{folder}/copy.qcow2"), &copy).unwrap();
        }
        assert!(at.is_none(), "{what}: a canary at {:#x}", at.unwrap_or(0));
        before == after
    }

    #[test]
    fn sound_images() {
        let seed = setting("VDISK_SEED", 1);
        let wanted = setting("VDISK_CANARIES", 10_000);
        let (mut hidden, mut number) = (0, 0);
        while hidden < wanted || number < 12 {
            let what = format!("VDISK_SEED={seed} image {number}");
            let (image, canaries) = image(&mut Random::new(seed << 32 | number));
            hidden += canaries.count;
            assert!(scrubbed(&image, &canaries, &what), "{what}");
            let (copy, scrubbed) = copy(&image, Options::default()).unwrap();
            assert_eq!(scrubbed.redacted.unsettled, 0, "{what}");
            // A copy of the copy is the same.
            assert!(self::copy(&copy, Options::default()).unwrap().0 == copy, "{what}");
            number += 1;
        }
        println!("{number} images, {hidden} canaries");
    }

    /// The refcount table is so long that the LUKS header is in it.
    #[test]
    fn names_of_ciphers_end_where_they_did() {
        let mut image =
            Qcow2::new(1 << 20).cluster_bits(12).luks(Luks::new(1)).data(0, b"data").build().unwrap();
        image[56..60].copy_from_slice(&0x1000u32.to_be_bytes());
        assert!(check(&image).unwrap().report.has("refcount-table-outside"));
        assert!(scrubbed(&image, &Canaries::new(&mut Random::new(1)), "a long refcount table"));
    }

    /// An entry behind the directory's end, which is somebody's data.
    #[test]
    fn nothing_of_bitmaps_that_are_none() {
        let mut image = Qcow2::new(1 << 20).bitmap(Bitmap::new("name").dirty(0..512)).build().unwrap();
        let extensions = Header::parse(&image).unwrap().extensions().map_while(Result::ok);
        let (at, next) = extensions
            .filter_map(|extension| match extension.content() {
                Ok(Content::Bitmaps(bitmaps)) => {
                    let entry = bitmaps.directory(&image).next()?.ok()?;
                    Some((extension.data_offset().0 as usize, entry.next.0 as usize))
                }
                _ => None,
            })
            .next()
            .unwrap();
        image[at + 3] = 2;
        let mut canaries = Canaries::new(&mut Random::new(1));
        let data =
            [0x75, 0x78, 0x45, 0x6c, 0x56, 0x66, 0x1b, 0xcf, 0x69, 0xf9, 0x6a, 0x84, 2, 0x33, 0x2b, 0x6c];
        canaries.hide(&data);
        image[next + 8..][..16].copy_from_slice(&data);
        assert!(scrubbed(&image, &canaries, "a directory that is too short"));
    }

    /// Whatever lies over a name: where something takes it for a table, its words may be entries, and each bit a refcount.
    #[test]
    fn names_that_tables_lie_over() {
        // None of the characters that stand in for others.
        const NAME: &[u8] = b"Vq7#Lk2QwA9!Xp4^Hn6&Jt3%";
        let name = || String::from_utf8(NAME.to_vec()).unwrap();
        for order in 0..=6 {
            let disk = Qcow2::new(4 << 20).cluster_bits(12).refcount_order(order);
            // A refcount of one bit is none of what a snapshot shares.
            let disk = if order == 0 { disk } else { disk.data(0, vec![1; 1 << 14]) };
            let image =
                disk.bitmap(Bitmap::new(name())).snapshot(Snapshot::new("1", name())).build().unwrap();
            let places: Vec<usize> =
                (0..image.len() - NAME.len()).filter(|&at| image[at..].starts_with(NAME)).collect();
            let [_, _] = places[..] else { panic!("order {order}: {places:?}") };
            for &at in &places {
                let cluster = at as u64 >> 12 << 12;
                let geometry = Tables::new(&image).unwrap().geometry();
                let l1 = geometry.l1_table().offset.0 as usize;
                let refcount_table = geometry.refcount_table().offset.0 as usize;
                // L2 table, L1 table, refcount table and refcount block.
                for (field, entry) in
                    [(l1, 1 << 63 | cluster), (40, cluster), (48, cluster), (refcount_table, cluster)]
                {
                    let mut image = image.clone();
                    image[field..field + 8].copy_from_slice(&entry.to_be_bytes());
                    let (copy, scrubbed) = copy(&image, Options::default()).unwrap();
                    assert!(audit(&copy, &scrubbed).is_sound());
                    let told = NAME.iter().zip(&copy[at..]).find(|(name, copy)| name == copy);
                    assert_eq!(told, None, "order {order}, {field:#x}: {:?}", &copy[at..at + NAME.len()]);
                }
            }
        }
    }

    /// The end of a word, with zeroes around it, in what an L1 entry takes for an L2 table: a backing file's name, and a
    /// snapshot's ID.
    #[test]
    fn a_name_that_reads_as_the_offset_of_a_cluster() {
        // Of a file so large that 0x626400 is in it.
        let disk = || Qcow2::new(16 << 20).cluster_bits(9).allocate(0..12 << 20);
        let table_at = |image: &mut [u8], offset: u64| {
            let l1 = Tables::new(&*image).unwrap().geometry().l1_table().offset.0 as usize;
            image[l1..l1 + 8].copy_from_slice(&(1 << 63 | offset).to_be_bytes());
        };
        let assert_hidden = |image: &[u8], at: usize| {
            let word = at / 8 * 8;
            assert_eq!(image[word..word + 8], [0, 0, 0, 0, 0, b'b', b'd', 0]);
            let (copy, _) = copy(image, Options::default()).unwrap();
            assert!(copy[at] != b'b' && copy[at + 1] != b'd', "{:?}", &copy[word..word + 8]);
        };
        let mut image = disk().backing_file("name", None).build().unwrap();
        image[120..512].fill(0);
        image[8..16].copy_from_slice(&501u64.to_be_bytes());
        image[16..20].copy_from_slice(&2u32.to_be_bytes());
        image[501..503].copy_from_slice(b"bd");
        table_at(&mut image, 0);
        assert_hidden(&image, 501);
        let snapshot = Snapshot::new("bd", "").extra_data_size(16 + 5);
        let mut image = disk().snapshot(snapshot).build().unwrap();
        let entry = Tables::new(&image).unwrap().snapshots().next().unwrap().unwrap().offset.0;
        image[entry as usize + 56..][..5].fill(0);
        table_at(&mut image, entry);
        assert_hidden(&image, entry as usize + 40 + 21);
    }

    /// Nobody keeps track of what the tables of such bitmaps name.
    #[test]
    fn nothing_of_bitmaps_that_are_not_consistent() {
        let disk = Qcow2::new(64 << 20).cluster_bits(12).data(0, b"data");
        let mut image = disk.bitmap(Bitmap::new("name").dirty(0..1 << 20)).build().unwrap();
        let tables = Tables::new(&image).unwrap();
        let directory = BitmapsExtension::of(tables.header()).unwrap().directory(&image).next().unwrap();
        let entry = tables.bitmap_table_entries(directory.unwrap().fixed.table()).next().unwrap().1;
        let cluster = entry.cluster().0 as usize;
        image[cluster + 2048..cluster + 2054].copy_from_slice(b"secret");
        for is_consistent in [true, false] {
            image[95] = u8::from(is_consistent); // autoclear_features
            let (copy, _) = copy(&image, Options::default().keep_bitmap_data(true)).unwrap();
            let is_there = copy.windows(6).any(|bytes| bytes == b"secret");
            assert_eq!(is_there, is_consistent);
        }
    }

    #[test]
    fn damaged_images() {
        let seed = setting("VDISK_SEED", 1);
        let images = setting("VDISK_SCRUBS", 60);
        let first = setting("VDISK_FIRST", 0);
        let (mut others, mut failed, mut hidden) = (0, 0, 0);
        for number in first..first + images {
            let what = format!("VDISK_SEED={seed} VDISK_FIRST={number} VDISK_SCRUBS=1");
            let mut random = Random::new(seed << 32 | 1 << 31 | number);
            let (mut image, mut canaries) = image(&mut random);
            damage(&mut image, &mut random, &mut canaries);
            hidden += canaries.count;
            let is_same = if env::var_os("VDISK_GO_ON").is_some() {
                std::panic::catch_unwind(|| scrubbed(&image, &canaries, &what))
            } else {
                Ok(scrubbed(&image, &canaries, &what))
            };
            failed += u64::from(is_same.is_err());
            others += u64::from(matches!(is_same, Ok(false)));
        }
        println!("{images} images, {hidden} canaries; in {others} copies a check finds something else");
        assert_eq!(failed, 0);
        assert!(others * 25 <= images.max(50), "{others} of {images}");
    }
}
