//! An image as the OCI image specification lays one out on disk, made from files given in a test.

use crate::sha256;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// An image being put together: layers, then the configuration.
#[derive(Debug, Default)]
pub struct OciImage {
    layers: Vec<Vec<u8>>,
}

impl OciImage {
    /// Without any layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer of files: name, mode, contents. A name that ends in `/` is a directory.
    #[must_use]
    pub fn layer(mut self, files: &[(&str, u32, &[u8])]) -> Self {
        let mut builder = Builder::new(Vec::new());
        for (name, mode, contents) in files {
            let mut header = Header::new_gnu();
            let is_dir = name.ends_with('/');
            header.set_entry_type(if is_dir { EntryType::Directory } else { EntryType::Regular });
            header.set_mode(*mode);
            header.set_size(contents.len() as u64);
            builder.append_data(&mut header, name, *contents).expect("an entry");
        }
        self.layers.push(builder.into_inner().expect("a layer"));
        self
    }

    /// Writes the layout; `config` is the `config` object of the image configuration (specification,
    /// "OCI Image Configuration").
    pub fn write(&self, dir: &Path, config: &Value) {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a directory");
        let blob = |bytes: &[u8], kind: &str| {
            let digest = sha256(bytes);
            fs::write(dir.join("blobs/sha256").join(&digest), bytes).expect("a blob");
            let media = format!("application/vnd.oci.image.{kind}");
            json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len()})
        };
        let layers: Vec<Value> =
            self.layers.iter().map(|layer| blob(layer, "layer.v1.tar")).collect();
        let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let image = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = blob(image.to_string().as_bytes(), "config.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(dir.join("index.json"), index.to_string()).expect("an index");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("a layout");
    }
}
