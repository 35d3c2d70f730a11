//! An OCI config.json as it came, read but not yet judged.

mod builder;

use crate::error::{Error, Result, SysResult};
use oci_spec::runtime as oci;
use std::path::{Path, PathBuf};

pub use builder::SystemContainer;

/// A configuration: the typed view and the document itself, so that fields this library does not know survive.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    oci: oci::Spec,
    raw: serde_json::Value,
}

impl Spec {
    /// Reads the text of a config.json (OCI runtime specification 1.0 to 1.3). What it asks for is judged by
    /// [`crate::plan::build::plan`].
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`](crate::Kind::InvalidConfig): not JSON, or a field is missing or has the wrong type.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let raw: serde_json::Value =
            serde_json::from_slice(json).map_err(|e| Error::invalid(format!("config.json is not JSON: {e}")))?;
        let oci = serde_json::from_slice(json).map_err(|e| Error::invalid(format!("config.json: {e}")))?;
        Ok(Spec { oci, raw })
    }

    /// Reads `config.json` in a bundle's directory.
    ///
    /// # Errors
    /// The file cannot be read, or see [`Spec::from_json`].
    pub fn from_bundle(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        let json = std::fs::read(&path).op_at("read", &path)?;
        Spec::from_json(&json).map_err(|e| e.at(&path))
    }

    /// The typed view.
    pub fn oci(&self) -> &oci::Spec {
        &self.oci
    }

    /// The document as it was read, unknown fields included.
    pub fn to_json(&self) -> &serde_json::Value {
        &self.raw
    }

    /// The root file system's directory on the host, with links resolved: looks at the host. A relative one is relative to the
    /// bundle.
    ///
    /// # Errors
    /// None is given, or it does not exist.
    pub fn root_path(&self, bundle: &Path) -> Result<PathBuf> {
        let root = self.oci.root().as_ref().ok_or_else(|| Error::invalid("config.json has no root"))?;
        let path = bundle.join(root.path());
        path.canonicalize().op_at("root.path", &path)
    }

    /// Where binds come from, in their order; relative sources are relative to the bundle. Pure: whether they exist is not asked.
    pub fn bind_sources(&self, bundle: &Path) -> Vec<PathBuf> {
        let mounts = self.oci.mounts().as_deref().unwrap_or_default();
        mounts.iter().filter(|m| is_bind(m)).filter_map(|m| m.source().as_ref().map(|s| bundle.join(s))).collect()
    }
}

/// Whether a mount of the configuration is a bind: by type or by option, as runc decides.
pub(crate) fn is_bind(m: &oci::Mount) -> bool {
    m.typ().as_deref() == Some("bind")
        || m.options().as_deref().unwrap_or_default().iter().any(|o| o == "bind" || o == "rbind")
}
