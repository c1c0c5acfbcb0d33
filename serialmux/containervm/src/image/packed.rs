//! Images as registries and Docker pack them: manifests that name a configuration and layers.
//!
//! Two forms lead to the same list of layers: the OCI layout (`oci-layout`, `index.json`, `blobs/`; image-layout.md
//! of the OCI image spec), in which every file is checked against its digest, and the older `manifest.json` of
//! `docker save`, in which the unpacked layers are checked against the configuration's `diff_ids`.

use std::path::Path;

use serde::Deserialize;

use super::{ImageConfig, ImageError, blob::Blob, bundle::Bundle, layer};
use crate::tree::Tree;

/// Indexes of indexes that are followed.
const MAX_INDEX_DEPTH: usize = 4;
/// Layers of one image; Docker stops at 127.
const MAX_LAYERS: usize = 512;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<ImageConfig>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// An image's layers, lowest first, before any is unpacked.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) config: ImageConfig,
    layers: Vec<Blob>,
    /// Digests of the unpacked layers, where the packed ones carry none.
    diff_ids: Vec<String>,
}

impl Packed {
    /// Reads an OCI layout.
    pub(super) fn from_oci(bundle: &Bundle) -> Result<Self, ImageError> {
        let manifest = manifest(bundle, bundle.json("index.json")?, MAX_INDEX_DEPTH)?;
        let file: ConfigFile = bundle.parse(&checked(bundle, &manifest.config.digest)?)?;
        let layers = manifest
            .layers
            .iter()
            .map(|layer| checked(bundle, &layer.digest))
            .collect::<Result<_, _>>()?;
        Self::new(bundle, file, layers, false)
    }

    /// Reads what `docker save` wrote; none when `manifest.json` is something else that happens to be called so.
    pub(super) fn from_docker(bundle: &Bundle) -> Result<Option<Self>, ImageError> {
        let images: Vec<SavedImage> = match bundle.json("manifest.json") {
            Ok(images) => images,
            Err(ImageError::Json { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let [image] = images.as_slice() else {
            let names =
                images.iter().flat_map(|image| image.repo_tags.iter().flatten().cloned()).collect();
            return Err(ImageError::Ambiguous { image: bundle.name(), names });
        };
        let file: ConfigFile = bundle.json(&image.config)?;
        let layers =
            image.layers.iter().map(|layer| bundle.open(layer)).collect::<Result<_, _>>()?;
        Self::new(bundle, file, layers, true).map(Some)
    }

    fn new(
        bundle: &Bundle,
        file: ConfigFile,
        layers: Vec<Blob>,
        check: bool,
    ) -> Result<Self, ImageError> {
        let of = |what: &str| ["", what].contains(&file.os.as_str());
        if !of("linux") || !["", "amd64"].contains(&file.architecture.as_str()) {
            let platforms = vec![format!("{}/{}", file.os, file.architecture)];
            return Err(ImageError::Platform { image: bundle.name(), platforms });
        }
        if layers.len() > MAX_LAYERS {
            return Err(ImageError::TooManyLayers { image: bundle.name(), n_layers: layers.len() });
        }
        let mut diff_ids = if check { file.rootfs.diff_ids } else { Vec::new() };
        // Very old images have none.
        if diff_ids.len() != layers.len() {
            diff_ids.clear();
        }
        Ok(Self { config: file.config.unwrap_or_default(), layers, diff_ids })
    }

    /// Lays the layers over each other; compressed ones are unpacked into unnamed files in `spool`.
    pub(super) fn merge(
        &self,
        spool: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Tree, ImageError> {
        let mut tree = Tree::new();
        for (index, blob) in self.layers.iter().enumerate() {
            tell(&format!("unpacking layer {} of {}", index + 1, self.layers.len()));
            let layer = blob.unpacked(spool)?;
            if let Some(expected) = self.diff_ids.get(index) {
                check_digest(&layer, expected)?;
            }
            layer::apply(&layer, &mut tree)?;
        }
        Ok(tree)
    }
}

/// Follows an index to the one manifest for Linux on amd64.
fn manifest(bundle: &Bundle, index: Index, depth: usize) -> Result<Manifest, ImageError> {
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == "amd64")
    };
    let chosen: Vec<&Descriptor> = index.manifests.iter().filter(fits).collect();
    let same =
        |other: &&&Descriptor| Some(&other.digest) != chosen.first().map(|first| &first.digest);
    let Some(first) = chosen.first() else {
        let platform = |platform: &Platform| format!("{}/{}", platform.os, platform.architecture);
        let platforms =
            index.manifests.iter().filter_map(|d| d.platform.as_ref().map(platform)).collect();
        return Err(ImageError::Platform { image: bundle.name(), platforms });
    };
    if chosen.iter().any(|other| same(&other)) {
        let name =
            |d: &&Descriptor| d.annotations.get("org.opencontainers.image.ref.name").cloned();
        let names = chosen.iter().map(|d| name(d).unwrap_or_else(|| d.digest.clone())).collect();
        return Err(ImageError::Ambiguous { image: bundle.name(), names });
    }
    let blob = checked(bundle, &first.digest)?;
    if !first.media_type.contains("index") && !first.media_type.contains("manifest.list") {
        return bundle.parse(&blob);
    }
    let left = depth.checked_sub(1).ok_or_else(|| ImageError::TooDeep { image: bundle.name() })?;
    manifest(bundle, bundle.parse(&blob)?, left)
}

/// The blob with this digest, once its contents have been checked against it.
fn checked(bundle: &Bundle, digest: &str) -> Result<Blob, ImageError> {
    let hash = sha256_of(digest)
        .ok_or_else(|| ImageError::Digest { image: bundle.name(), digest: digest.into() })?;
    let blob = bundle.open(&format!("blobs/sha256/{hash}"))?;
    check_digest(&blob, digest)?;
    Ok(blob)
}

fn check_digest(blob: &Blob, expected: &str) -> Result<(), ImageError> {
    let found = format!("sha256:{}", blob.sha256()?);
    if found == expected {
        return Ok(());
    }
    Err(ImageError::Mismatch { file: blob.name.clone(), expected: expected.to_owned(), found })
}

/// The hexadecimal part of a well-formed digest, safe as a file name.
fn sha256_of(digest: &str) -> Option<&str> {
    let hash = digest.strip_prefix("sha256:")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (hash.len() == 64 && hash.bytes().all(is_hex)).then_some(hash)
}
