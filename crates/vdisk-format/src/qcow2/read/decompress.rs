//! Compressed clusters: one cluster's data in, one cluster out, never a byte more.

use crate::qcow2::geometry::Compression;

/// Why there is no cluster.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "decompress"), expect(dead_code, reason = "nothing is decoded"))]
pub(crate) enum Failure {
    /// This library cannot decode such data.
    Unsupported(&'static str),
    /// These data are none.
    Undecodable(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsupported(why) => f.write_str(why),
            Self::Undecodable(why) => f.write_str(why),
        }
    }
}

/// The `size` bytes that `data` decode to: no less and no more. What follows them in their last sector is left alone.
#[cfg(feature = "decompress")]
pub(crate) fn cluster(compression: Compression, data: &[u8], size: u64) -> Result<Vec<u8>, Failure> {
    // No more than the largest cluster, 2 MiB.
    let mut out = vec![0; usize::try_from(size).unwrap_or(0)];
    match compression {
        Compression::Zlib => inflate(data, &mut out),
        Compression::Zstd => zstd(data, &mut out),
        Compression::Unknown(_) => return Err(Failure::Unsupported("the compression type is not known")),
    }
    .map_err(Failure::Undecodable)?;
    Ok(out)
}

#[cfg(not(feature = "decompress"))]
pub(crate) fn cluster(_: Compression, _: &[u8], _: u64) -> Result<Vec<u8>, Failure> {
    Err(Failure::Unsupported("this was built without the feature `decompress`"))
}

/// QEMU compresses with a window of 4 KiB. As it decodes in one call, where all of the output is at hand, it takes data
/// with larger ones, and so do we.
#[cfg(feature = "decompress")]
fn inflate(data: &[u8], out: &mut [u8]) -> Result<(), String> {
    use flate2::{Decompress, FlushDecompress};
    let mut decoder = Decompress::new(false);
    decoder.decompress(data, out, FlushDecompress::Finish).map_err(|error| error.to_string())?;
    // A stream that would go on has still made a cluster: QEMU takes it.
    if decoder.total_out() == out.len() as u64 { Ok(()) } else { Err(short(decoder.total_out())) }
}

/// As QEMU, takes several frames, and none that would go on behind the cluster.
#[cfg(feature = "decompress")]
fn zstd(mut data: &[u8], mut out: &mut [u8]) -> Result<(), String> {
    use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
    use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
    use std::io::Read;

    /// What RFC 8878 recommends that every decoder takes.
    const MAX_WINDOW: u64 = 8 << 20;

    let (mut decoder, size) = (FrameDecoder::new(), out.len());
    decoder.set_max_window_size(MAX_WINDOW);
    while !out.is_empty() {
        let (frame, before) = (data, out.len());
        match decoder.reset(&mut data) {
            Ok(()) => {}
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                data = data.get(length..).ok_or_else(|| short((size - out.len()) as u64))?;
                continue;
            }
            Err(error) => return Err(error.to_string()),
        }
        while !decoder.is_finished() {
            let blocks = BlockDecodingStrategy::UptoBlocks(1);
            decoder.decode_blocks(&mut data, blocks).map_err(|error| error.to_string())?;
            let count = decoder.read(out).map_err(|error| error.to_string())?;
            out = out.split_at_mut(count).1;
            if out.is_empty() {
                break;
            }
        }
        if !decoder.is_finished() || decoder.can_collect() != 0 {
            return Err("a frame that is longer than a cluster".to_owned());
        }
        let made = (before - out.len()) as u64;
        match frame_content_size(frame)? {
            Some(declared) if declared != made => {
                return Err(format!("a frame of {made} bytes that says {declared}"));
            }
            _ => {}
        }
        if decoder.get_checksum_from_data().is_some_and(|sum| Some(sum) != decoder.get_calculated_checksum())
        {
            return Err("a frame with a wrong checksum".to_owned());
        }
    }
    Ok(())
}

/// What a frame's header says that the frame decodes to (RFC 8878, 3.1.1.1), if it does.
#[cfg(feature = "decompress")]
fn frame_content_size(frame: &[u8]) -> Result<Option<u64>, String> {
    let Some((&descriptor, fields)) = frame.get(4..).and_then(<[u8]>::split_first) else { return Ok(None) };
    if descriptor & 1 << 3 != 0 {
        return Err("a frame with the reserved bit set".to_owned());
    }
    let is_single_segment = descriptor & 1 << 5 != 0;
    let window_descriptor = usize::from(!is_single_segment);
    let dictionary_id = match descriptor & 3 {
        3 => 4,
        length => length.into(),
    };
    let length = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        flag => 1 << flag,
    };
    let start = window_descriptor + dictionary_id;
    let Some(field) = fields.get(start..start + length).filter(|field| !field.is_empty()) else {
        return Ok(None);
    };
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(field).for_each(|(to, from)| *to = *from);
    let least = if length == 2 { 256 } else { 0 };
    // The largest number is how zstd itself writes that it does not know.
    Ok(Some(u64::from_le_bytes(bytes).saturating_add(least)).filter(|&size| size != u64::MAX))
}

#[cfg(feature = "decompress")]
fn short(bytes: u64) -> String {
    format!("{bytes} bytes")
}

#[cfg(test)]
#[cfg(feature = "decompress")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A deflate stream of one stored block, the last one if `last`.
    fn stored(bytes: &[u8], last: bool) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap();
        let mut out = vec![u8::from(last)];
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(bytes);
        out
    }

    /// A zstd frame without content size: a window of 1 KiB << `window`, one block that repeats `byte`.
    fn frame(window: u8, byte: u8, count: u32) -> Vec<u8> {
        let block = 1 | 1 << 1 | count << 3; // last, RLE
        let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window << 3];
        out.extend(&block.to_le_bytes()[..3]);
        out.push(byte);
        out
    }

    #[test]
    fn deflate_makes_a_cluster_or_nothing() {
        let zlib = |data: &[u8]| cluster(Compression::Zlib, data, 512);
        let mut whole = stored(&[7; 512], true);
        whole.extend([0xff; 100]); // the rest of the sector
        assert_eq!(zlib(&whole), Ok(vec![7; 512]));
        // QEMU takes a stream that goes on.
        assert_eq!(zlib(&stored(&[7; 600], true)), Ok(vec![7; 512]));
        assert_eq!(zlib(&stored(&[7; 511], true)), Err(Failure::Undecodable("511 bytes".to_owned())));
        assert!(zlib(&stored(&[7; 512], true)[..300]).is_err());
        assert!(zlib(&[0xff; 512]).is_err());
        assert!(zlib(&[]).is_err());
    }

    #[test]
    fn zstd_makes_a_cluster_or_nothing() {
        let zstd = |data: &[u8]| cluster(Compression::Zstd, data, 1024);
        let mut whole = frame(0, 7, 1024);
        whole.extend([0xff; 100]);
        assert_eq!(zstd(&whole), Ok(vec![7; 1024]));
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let two = [frame(0, 7, 1000), skipped.to_vec(), frame(0, 8, 24)].concat();
        assert_eq!(zstd(&two), Ok([vec![7; 1000], vec![8; 24]].concat()));
        for (data, why) in [
            (frame(0, 7, 1023), "short"),
            (frame(1, 7, 1025), "long"),
            (frame(14, 7, 1024), "a window of 16 MiB"),
            (whole[..9].to_vec(), "cut"),
            (Vec::new(), "nothing"),
            (vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9], "a skipped frame that is cut"),
        ] {
            assert!(zstd(&data).is_err(), "{why}");
        }
    }

    /// A frame that says how long it is, in a field of so many bytes, and has `count` of them.
    fn sized(length: usize, says: u64, count: u32) -> Vec<u8> {
        let flag = [0, 0, 1, 1, 2, 2, 2, 2, 3][length];
        let single_segment = u8::from(length == 1) << 5;
        let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, flag << 6 | single_segment];
        out.extend((length > 1).then_some(0));
        out.extend(&says.to_le_bytes()[..length]);
        out.extend(&frame(0, 7, count)[6..]);
        out
    }

    #[test]
    fn a_frame_is_as_long_as_it_says() {
        let zstd = |data: &[u8], size| cluster(Compression::Zstd, data, size).is_ok();
        for (length, says, count) in [(1, 200, 200), (2, 512 - 256, 512), (4, 1024, 1024), (8, 1024, 1024)] {
            let size = count.into();
            assert!(zstd(&sized(length, says, count), size), "{length}");
            assert!(!zstd(&sized(length, says + 1, count), size), "{length}");
            assert!(!zstd(&sized(length, 0, count), size), "{length}");
            let mut reserved = sized(length, says, count);
            reserved[4] |= 8;
            assert!(!zstd(&reserved, size), "{length}");
        }
        assert!(zstd(&sized(8, u64::MAX, 1024), 1024) && !zstd(&sized(8, u64::MAX - 1, 1024), 1024));
        // Nobody needs bit 4.
        let mut unused = frame(0, 7, 1024);
        unused[4] |= 16;
        assert!(zstd(&unused, 1024));
    }

    #[test]
    fn what_nobody_has_defined_is_not_decoded() {
        assert!(matches!(cluster(Compression::Unknown(2), &[], 512), Err(Failure::Unsupported(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_do_not(data in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
            let _ = cluster(Compression::Zlib, &data, 4096);
            let data = if magic { [&[0x28, 0xb5, 0x2f, 0xfd], data.as_slice()].concat() } else { data };
            let _ = cluster(Compression::Zstd, &data, 4096);
        }
    }
}
