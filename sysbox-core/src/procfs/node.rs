//! What a node is: a single file or directory below /proc or /sys that is not the kernel's.

use super::live::Live;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A node. The default ones are those of [`super::Nodes::default`]; an embedder adds his own with [`super::Nodes::with`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Absolute path inside, below /proc or /sys. Nothing happens where the kernel has no such file: a node can cover a file, and
    /// cannot make one.
    pub path: PathBuf,
    /// What takes its place.
    pub kind: Kind,
    /// Which values make sense.
    pub value: Value,
    /// Where the kernel has its own, so that the node is not used; and why it is there, if that is not plain.
    pub note: String,
    /// Only where it is asked for: the kernel shows another file at that path to processes of another network or IPC namespace. A
    /// program that changes to one, and then looks for every mount that it has been told of, does not find this one.
    pub on_request: bool,
}

/// What is done for a node: what takes which place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// As in [`Node`].
    pub path: PathBuf,
    /// As in [`Node`].
    pub kind: Kind,
}

/// What takes the place of the kernel's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A plain file of the container's own, which keeps what is written. No process serves it, and nobody checks what is
    /// written: [`Value`] is for those who look. Used only where the kernel refuses the container's root to write; one that
    /// nobody may write (`mode`) is used always.
    Stored {
        /// What it holds at first.
        initial: Initial,
        /// Permission bits.
        mode: u32,
    },
    /// Computed from the container's control groups by its monitor, for each reader.
    Live(Live),
    /// An empty directory where software expects to find one, or to mount something.
    Empty,
    /// Something empty over what the container has no business with.
    Hidden,
}

/// What a stored node holds at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Initial {
    /// This: the kernel's default.
    Text(String),
    /// What the container reads at this path when it is made: of the node's own path, it is a limit of the host that binds.
    Copy(PathBuf),
    /// A UUID made from the container's name: the same when a container of that name is made again.
    NameUuid,
}

/// Which values make sense, as the kernel's own file has it (Documentation/admin-guide/sysctl).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// So many integers, separated by blanks.
    Integers {
        /// How many.
        count: usize,
        /// The smallest.
        min: i64,
        /// The largest.
        max: u64,
    },
    /// One line of up to so many bytes.
    Line(usize),
    /// A UUID.
    Uuid,
    /// Several lines.
    Text,
    /// It is a directory.
    Directory,
}

impl Value {
    /// One integer.
    pub const fn integer(min: i64, max: u64) -> Self {
        Value::Integers { count: 1, min, max }
    }

    /// Whether the kernel's own file would take `text`, with or without a newline at its end.
    pub fn accepts(&self, text: &str) -> bool {
        let text = text.strip_suffix('\n').unwrap_or(text);
        match self {
            Value::Integers { count, min, max } => {
                let within = |word: &str| match word.parse::<i128>() {
                    Ok(n) => n >= i128::from(*min) && n <= i128::from(*max),
                    Err(_) => false,
                };
                text.split_whitespace().count() == *count && text.split_whitespace().all(within) && !text.contains('\n')
            }
            Value::Line(longest) => text.len() <= *longest && !text.contains('\n'),
            Value::Uuid => is_uuid(text),
            Value::Text => true,
            Value::Directory => false,
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let dash = |i| matches!(i, 8 | 13 | 18 | 23);
    text.len() == 36 && text.bytes().enumerate().all(|(i, b)| if dash(i) { b == b'-' } else { b.is_ascii_hexdigit() })
}

impl Node {
    /// A stored sysctl: `name` as sysctl(8) has it with slashes, below /proc/sys.
    pub fn sysctl(name: &str, initial: Initial, value: Value) -> Self {
        let path = Path::new("/proc/sys").join(name);
        Node { path, kind: Kind::Stored { initial, mode: 0o644 }, value, note: String::new(), on_request: false }
    }

    /// Leaves it out where it is not asked for.
    #[must_use]
    pub fn on_request(mut self) -> Self {
        self.on_request = true;
        self
    }

    /// Says where the kernel has its own, or why the node is there.
    #[must_use]
    pub fn because(mut self, note: &str) -> Self {
        self.note = note.into();
        self
    }

    /// Other permission bits, of a stored node.
    #[must_use]
    pub fn mode(mut self, bits: u32) -> Self {
        if let Kind::Stored { mode, .. } = &mut self.kind {
            *mode = bits;
        }
        self
    }

    /// What is to be done for it.
    pub fn leaf(&self) -> Leaf {
        Leaf { path: self.path.clone(), kind: self.kind.clone() }
    }
}

impl Kind {
    /// In a word: `stored`, `live`, `empty` or `hidden`.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Stored { .. } => "stored",
            Kind::Live(_) => "live",
            Kind::Empty => "empty",
            Kind::Hidden => "hidden",
        }
    }
}

impl Leaf {
    /// Nobody may write it: then it is there whatever the kernel allows.
    pub(crate) fn is_fixed(&self) -> bool {
        !matches!(self.kind, Kind::Stored { mode, .. } if mode & 0o222 != 0)
    }

    /// What it shows, if it is live.
    pub(crate) fn live(&self) -> Option<Live> {
        match self.kind {
            Kind::Live(live) => Some(live),
            _ => None,
        }
    }
}

/// A UUID of version 8 (RFC 9562) from a name: 128 bits of FNV-1a, which is no secret and need not be.
pub(crate) fn name_uuid(name: &str) -> String {
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let hash = name.bytes().fold(OFFSET, |h, b| (h ^ u128::from(b)).wrapping_mul(PRIME));
    let bits = hash & !(0xf000 << 64) & !(0xc000 << 48) | 0x8000 << 64 | 0x8000 << 48;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_as_the_kernel_would() {
        let percent = Value::integer(0, 100);
        assert!(percent.accepts("100\n") && percent.accepts("0"));
        assert!(!percent.accepts("101\n") && !percent.accepts("-1") && !percent.accepts("") && !percent.accepts("x"));
        assert!(!percent.accepts("5\n94304\n"));
        let printk = Value::Integers { count: 4, min: 0, max: 15 };
        assert!(printk.accepts("4\t4\t1\t7\n") && !printk.accepts("4 4 1"));
        assert!(Value::integer(0, u64::MAX).accepts("18446744073692774399"));
        assert!(Value::Line(3).accepts("abc\n") && !Value::Line(3).accepts("abcd"));
    }

    #[test]
    fn uuids_of_names() {
        let (a, b) = (name_uuid("a"), name_uuid("b"));
        assert!(Value::Uuid.accepts(&a) && Value::Uuid.accepts(&format!("{b}\n")));
        assert_ne!(a, b);
        assert_eq!(a, name_uuid("a"));
        assert!(&a[14..15] == "8" && "89ab".contains(&a[19..20]), "{a}");
        assert!(!Value::Uuid.accepts("d3c213d6c62a4dfb94c431e261c8ead8xxxx"));
    }
}
