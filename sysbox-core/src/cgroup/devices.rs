//! Which devices a container may create, read and write.
//!
//! Rules are evaluated for each access bit on its own: the last rule that matches the device and covers the bit decides it, and
//! a bit that no rule covers is denied. A request passes if every bit it asks for is allowed. Both back ends keep to that:
//! v1 through [`v1_writes`] (`devices.deny`, `devices.allow`; kernel cgroup-v1/devices.rst), v2 through
//! [`crate::cgroup::device_program`].

use crate::error::{Error, Kind, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

/// What a rule's device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Either sort.
    All,
    /// A block device.
    Block,
    /// A character device.
    Char,
}

/// What a rule is about; at least one is set in a valid rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `open` for reading.
    pub read: bool,
    /// `open` for writing.
    pub write: bool,
    /// `mknod`.
    pub mknod: bool,
}

impl Access {
    /// `rwm`.
    pub const ALL: Access = Access { read: true, write: true, mknod: true };

    /// The kernel's bits (`BPF_DEVCG_ACC_*` of bpf.h): mknod 1, read 2, write 4.
    pub fn bits(self) -> u8 {
        u8::from(self.mknod) | u8::from(self.read) << 1 | u8::from(self.write) << 2
    }

    /// The inverse of [`Access::bits`]; other bits are ignored.
    pub fn from_bits(bits: u8) -> Access {
        Access { mknod: bits & 1 != 0, read: bits & 2 != 0, write: bits & 4 != 0 }
    }

    fn text(self) -> String {
        [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')].iter().filter(|(on, _)| *on).map(|(_, c)| c).collect()
    }
}

/// One rule (OCI config-linux.md, "Allowed Device list").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allows, or denies.
    pub allow: bool,
    /// The sort of device.
    pub kind: DeviceKind,
    /// The major number; `None` is any.
    pub major: Option<u32>,
    /// The minor number; `None` is any.
    pub minor: Option<u32>,
    /// What it allows or denies.
    pub access: Access,
}

impl DeviceRule {
    /// Everything on every device, allowed or denied.
    pub fn everything(allow: bool) -> DeviceRule {
        DeviceRule { allow, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL }
    }

    /// Allows a character device.
    pub fn allow_char(major: u32, minor: Option<u32>, access: Access) -> DeviceRule {
        DeviceRule { allow: true, kind: DeviceKind::Char, major: Some(major), minor, access }
    }

    /// Reads one entry of `linux.resources.devices`; `index` is for the error only.
    ///
    /// # Errors
    /// The type is not `a`, `b` or `c`, a number is negative (other than -1, which is any) or too large, `access` is empty or
    /// has a letter other than `r`, `w`, `m`.
    pub fn from_oci(rule: &LinuxDeviceCgroup, index: usize) -> Result<DeviceRule> {
        let bad = |what: String| Error::invalid(format!("linux.resources.devices[{index}].{what}"));
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => DeviceKind::All,
            Some(LinuxDeviceType::B) => DeviceKind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
            Some(LinuxDeviceType::P) => return Err(bad("type \"p\" is not a device".into())),
        };
        let number = |n: Option<i64>, field: &str| match n {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n).map(Some).map_err(|_| bad(format!("{field} {n} is not a device number"))),
        };
        let mut bits = 0;
        for c in rule.access().as_deref().unwrap_or_default().chars() {
            bits |= match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => return Err(bad(format!("access has {c:?}, which is none of r, w, m"))),
            };
        }
        if bits == 0 {
            return Err(bad("access is empty".into()));
        }
        Ok(DeviceRule {
            allow: rule.allow(),
            kind,
            major: number(rule.major(), "major")?,
            minor: number(rule.minor(), "minor")?,
            access: Access::from_bits(bits),
        })
    }

    /// Whether the rule is about all devices and every access, so that nothing before it matters.
    pub fn is_everything(&self) -> bool {
        *self == DeviceRule::everything(self.allow)
    }

    /// Whether the rule is about this device.
    pub fn matches(&self, kind: DeviceKind, major: u32, minor: u32) -> bool {
        (self.kind == DeviceKind::All || self.kind == kind)
            && self.major.is_none_or(|m| m == major)
            && self.minor.is_none_or(|m| m == minor)
    }
}

/// All of `linux.resources.devices`, in order.
///
/// # Errors
/// Those of [`DeviceRule::from_oci`].
pub fn from_oci(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>> {
    rules.iter().enumerate().map(|(i, r)| DeviceRule::from_oci(r, i)).collect()
}

/// Drops what a later rule about everything makes void.
pub fn effective(rules: &[DeviceRule]) -> &[DeviceRule] {
    let start = rules.iter().rposition(DeviceRule::is_everything).unwrap_or(0);
    &rules[start..]
}

/// Whether the rules restrict nothing.
pub fn allows_everything(rules: &[DeviceRule]) -> bool {
    let rules = effective(rules);
    rules.first().is_some_and(DeviceRule::is_everything) && rules.iter().all(|r| r.allow)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    kind: DeviceKind,
    major: Option<u32>,
    minor: Option<u32>,
    bits: u8,
}

impl Exception {
    fn covers(&self, other: &Exception) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }

    fn overlaps(&self, other: &Exception) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    fn text(&self) -> String {
        let n = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = if self.kind == DeviceKind::Block { 'b' } else { 'c' };
        format!("{kind} {}:{} {}", n(self.major), n(self.minor), Access::from_bits(self.bits).text())
    }
}

/// A v1 devices cgroup as the kernel keeps it: one default and the exceptions to it.
#[derive(Debug, PartialEq, Eq)]
struct V1State {
    allow: bool,
    exceptions: Vec<Exception>,
}

/// Computes the kernel's state from the rules, so that what is written is short and never depends on how the kernel removes
/// an exception (it needs the same numbers to the letter, and silently ignores anything else).
fn v1_state(rules: &[DeviceRule]) -> Result<V1State> {
    let mut state = V1State { allow: false, exceptions: Vec::new() };
    for rule in effective(rules) {
        if rule.is_everything() {
            state = V1State { allow: rule.allow, exceptions: Vec::new() };
            continue;
        }
        // The kernel takes "a" for everything, whatever numbers and access go with it: spell a narrower one out.
        let kinds: &[DeviceKind] = match &rule.kind {
            DeviceKind::All => &[DeviceKind::Block, DeviceKind::Char],
            one => std::slice::from_ref(one),
        };
        for &kind in kinds {
            let new = Exception { kind, major: rule.major, minor: rule.minor, bits: rule.access.bits() };
            if rule.allow != state.allow {
                match state.exceptions.iter_mut().find(|e| e.covers(&new) && new.covers(e)) {
                    Some(e) => e.bits |= new.bits,
                    None => state.exceptions.push(new),
                }
                continue;
            }
            for e in state.exceptions.iter_mut().filter(|e| e.overlaps(&new) && e.bits & new.bits != 0) {
                if !new.covers(e) {
                    return Err(Error::new(
                        Kind::Unsupported,
                        format!(
                            "linux.resources.devices: cgroup v1 cannot except \"{}\" from \"{}\"",
                            new.text(),
                            e.text()
                        ),
                    ));
                }
                e.bits &= !new.bits;
            }
            state.exceptions.retain(|e| e.bits != 0);
        }
    }
    // With a default of deny, the kernel wants one exception to cover a whole request (read and write at once).
    let all = state.exceptions.clone();
    for e in &mut state.exceptions {
        e.bits = all.iter().filter(|o| o.covers(e)).fold(0, |b, o| b | o.bits);
    }
    Ok(state)
}

/// What to write to which file (`devices.deny`, `devices.allow`) of a new, childless v1 cgroup, in order.
///
/// No rules at all: nothing is written, and the cgroup keeps what it inherits.
///
/// # Errors
/// A rule cuts a hole into the wildcard of an earlier one (`allow c 1:* rwm`, then `deny c 1:3 w`), which v1 has no means
/// to express and would ignore.
pub fn v1_writes(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>> {
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let state = v1_state(rules)?;
    let (default, except) =
        if state.allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    let mut writes = vec![(default, "a".to_owned())];
    writes.extend(state.exceptions.iter().map(|e| (except, e.text())));
    Ok(writes)
}

/// The definition that both back ends are tested against; `bits` as in [`Access::bits`].
#[cfg(test)]
pub(crate) fn allowed(rules: &[DeviceRule], kind: DeviceKind, major: u32, minor: u32, bits: u8) -> bool {
    (0..3).map(|i| 1 << i).filter(|b| bits & b != 0).all(|bit| {
        rules
            .iter()
            .rev()
            .find(|r| r.matches(kind, major, minor) && r.access.bits() & bit != 0)
            .is_some_and(|r| r.allow)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_rules() -> impl Strategy<Value = Vec<DeviceRule>> {
        let kind = prop_oneof![Just(DeviceKind::All), Just(DeviceKind::Block), Just(DeviceKind::Char)];
        let rule = (any::<bool>(), kind, prop::option::of(0u32..3), prop::option::of(0u32..3), 1u8..8);
        let rule = rule.prop_map(|(allow, kind, major, minor, bits)| DeviceRule {
            allow,
            kind,
            major,
            minor,
            access: Access::from_bits(bits),
        });
        let rule = prop_oneof![4 => rule, 1 => any::<bool>().prop_map(DeviceRule::everything)];
        prop::collection::vec(rule, 0..8)
    }

    pub(crate) fn requests() -> impl Iterator<Item = (DeviceKind, u32, u32, u8)> {
        [DeviceKind::Block, DeviceKind::Char].into_iter().flat_map(|k| {
            (0..4).flat_map(move |major| (0..4).flat_map(move |minor| (1..8).map(move |bits| (k, major, minor, bits))))
        })
    }

    fn oci(json: &str) -> Result<Vec<DeviceRule>> {
        from_oci(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    #[test]
    fn what_docker_sends() {
        let rules = oci(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},
            {"allow":true,"type":"c","major":136,"minor":-1,"access":"rw"},{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}]"#,
        )
        .unwrap();
        let writes = v1_writes(&rules).unwrap();
        let writes: Vec<_> = writes.iter().map(|(f, v)| format!("{f} {v}")).collect();
        assert_eq!(writes, ["devices.deny a", "devices.allow c 1:5 rwm", "devices.allow c 136:* rw"]);
        assert!(!allows_everything(&rules));
    }

    #[test]
    fn privileged_needs_one_write() {
        let rules =
            oci(r#"[{"allow":true,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"rw"}]"#).unwrap();
        assert!(allows_everything(&rules));
        assert_eq!(v1_writes(&rules).unwrap()[0], ("devices.allow", "a".to_owned()));
        assert!(v1_writes(&[]).unwrap().is_empty());
    }

    #[test]
    fn bad_rules_name_the_field() {
        for (json, field) in [
            (r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#, "devices[0].major"),
            (r#"[{"allow":true,"type":"c","minor":4294967296,"access":"r"}]"#, "devices[0].minor"),
            (r#"[{"allow":true,"access":"x"}]"#, "devices[0].access"),
            (r#"[{"allow":true}]"#, "devices[0].access"),
            (r#"[{"allow":true,"type":"p","access":"r"}]"#, "devices[0].type"),
        ] {
            let e = oci(json).unwrap_err();
            assert!(e.kind() == Kind::InvalidConfig && e.to_string().contains(field), "{e}");
        }
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused_rather_than_ignored() {
        let mut rules = vec![DeviceRule::everything(false), DeviceRule::allow_char(1, None, Access::ALL)];
        rules.push(DeviceRule { allow: false, ..DeviceRule::allow_char(1, Some(3), Access::ALL) });
        assert_eq!(v1_writes(&rules).unwrap_err().kind(), Kind::Unsupported);
    }

    proptest! {
        /// The kernel's own matching (security/device_cgroup.c), for requests of one bit.
        #[test]
        fn v1_means_the_same(rules in any_rules()) {
            if let Ok(state) = v1_state(&rules) {
                for (kind, major, minor, bits) in requests().filter(|r| r.3.count_ones() == 1) {
                    let hit = state.exceptions.iter().any(|e| {
                        e.overlaps(&Exception { kind, major: Some(major), minor: Some(minor), bits }) && e.bits & bits != 0
                    });
                    prop_assert_eq!(state.allow != hit, allowed(&rules, kind, major, minor, bits));
                }
            }
        }
    }
}
