//! The sealed image: record, table, padding and data as one file.

use vram_alloc::ByteLen;

use crate::error::SealError;
use crate::record::fields::RecordFields;
use crate::record::header::SealRecord;
use crate::segment::table::SegmentTags;

/// The data of an image begins at a multiple of this many bytes.
pub const DATA_ALIGNMENT: u64 = 4096;

/// Where the parts of a sealed image lie, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageLayout {
    table_len: u64,
    data_offset: u64,
    data_len: u64,
}

impl ImageLayout {
    /// The layout of the image of a shard. For a genuine record it never exceeds the maximum length
    /// of a file.
    #[must_use]
    pub fn for_fields(fields: &RecordFields) -> Self {
        let table_len = fields.table_len().get();
        // At most 256 + 2^24 * 48 before rounding: far from overflow.
        let data_offset = table_len
            .saturating_add(Self::TABLE_OFFSET)
            .div_ceil(DATA_ALIGNMENT)
            .saturating_mul(DATA_ALIGNMENT);
        Self { table_len, data_offset, data_len: fields.plaintext_len().get() }
    }

    /// Where the table begins: behind the record.
    pub const TABLE_OFFSET: u64 = 256;

    /// Length of the table.
    #[must_use]
    pub const fn table_len(&self) -> u64 {
        self.table_len
    }

    /// Where the padding between table and data begins.
    #[must_use]
    pub const fn padding_offset(&self) -> u64 {
        self.table_len.saturating_add(Self::TABLE_OFFSET)
    }

    /// Length of the padding: fewer bytes than [`DATA_ALIGNMENT`].
    #[must_use]
    pub const fn padding_len(&self) -> u64 {
        self.data_offset.saturating_sub(self.padding_offset())
    }

    /// Where the data begins.
    #[must_use]
    pub const fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Length of the data.
    #[must_use]
    pub const fn data_len(&self) -> u64 {
        self.data_len
    }

    /// Length of the whole image.
    #[must_use]
    pub const fn total_len(&self) -> u64 {
        self.data_offset.saturating_add(self.data_len)
    }

    /// Checks the length of an image: trailing bytes are refused, like missing ones.
    ///
    /// # Errors
    ///
    /// [`SealError::WrongLength`].
    pub const fn check_len(&self, found: u64) -> Result<(), SealError> {
        let expected = self.total_len();
        if found == expected {
            Ok(())
        } else {
            Err(SealError::WrongLength { what: "the sealed image", expected, found })
        }
    }

    /// Checks the padding between table and data.
    ///
    /// # Errors
    ///
    /// [`SealError::WrongLength`] if `padding` does not have the padding's length,
    /// [`SealError::Padding`] with the position of the first byte that is not zero.
    pub fn check_padding(&self, padding: &[u8]) -> Result<(), SealError> {
        let (expected, found) = (self.padding_len(), ByteLen::from_usize(padding.len()).get());
        if expected != found {
            return Err(SealError::WrongLength { what: "the image's padding", expected, found });
        }
        match (self.padding_offset()..).zip(padding).find(|(_, byte)| **byte != 0) {
            Some((offset, _)) => Err(SealError::Padding { offset }),
            None => Ok(()),
        }
    }
}

/// The part of an image before its data: record, table and padding.
///
/// # Errors
///
/// [`SealError::WrongLength`] if the table does not have the length that the record states,
/// [`SealError::HostMemory`], and those of [`SealRecord::parse_unauthenticated`].
pub fn head(record: &SealRecord, tags: &SegmentTags) -> Result<Vec<u8>, SealError> {
    let fields = record.parse_unauthenticated()?;
    let layout = ImageLayout::for_fields(&fields);
    let (expected, found) = (layout.table_len(), tags.len_bytes().get());
    if expected != found {
        return Err(SealError::WrongLength { what: "the segment table", expected, found });
    }
    let refused = || SealError::HostMemory { wanted: ByteLen::new(layout.data_offset()) };
    let len = usize::try_from(layout.data_offset()).map_err(|_| refused())?;
    let mut head = Vec::new();
    head.try_reserve_exact(len).map_err(|_| refused())?;
    head.extend_from_slice(record);
    head.extend_from_slice(tags.as_bytes());
    head.resize(len, 0);
    Ok(head)
}

/// The record at the start of an image.
///
/// # Errors
///
/// [`SealError::WrongLength`] if the image is shorter than a record.
pub fn record(image: &[u8]) -> Result<SealRecord, SealError> {
    match image.first_chunk() {
        Some(bytes) => Ok(SealRecord::from_bytes(*bytes)),
        None => Err(SealError::WrongLength {
            what: "the record of a sealed image",
            expected: ImageLayout::TABLE_OFFSET,
            found: ByteLen::from_usize(image.len()).get(),
        }),
    }
}

/// Splits a whole image into table and data after its record was opened. Length and padding are
/// checked before memory is allocated for the table.
///
/// # Errors
///
/// [`SealError::WrongLength`], [`SealError::Padding`], [`SealError::HostMemory`].
pub fn split<'a>(
    fields: &RecordFields,
    image: &'a [u8],
) -> Result<(SegmentTags, &'a [u8]), SealError> {
    let layout = ImageLayout::for_fields(fields);
    layout.check_len(ByteLen::from_usize(image.len()).get())?;
    let part = |offset: u64, len: u64| -> &'a [u8] {
        let range = usize::try_from(offset)
            .ok()
            .zip(offset.checked_add(len).and_then(|end| usize::try_from(end).ok()));
        range.and_then(|(start, end)| image.get(start..end)).unwrap_or_default()
    };
    layout.check_padding(part(layout.padding_offset(), layout.padding_len()))?;
    let table = part(ImageLayout::TABLE_OFFSET, layout.table_len());
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(table.len())
        .map_err(|_| SealError::HostMemory { wanted: ByteLen::from_usize(table.len()) })?;
    bytes.extend_from_slice(table);
    let tags = SegmentTags::from_bytes(fields, bytes)?;
    Ok((tags, part(layout.data_offset(), layout.data_len())))
}
