//! What an image says about the process to run in it.

use serde::{Deserialize, Deserializer, Serialize};

/// Defaults of an image, as `docker inspect` shows them under `Config`. Exposed ports and volumes are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// Program and first arguments, before [`cmd`](Self::cmd).
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the whole command when there is no entry point.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Directory to start in; empty is `/`.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// `USER[:GROUP]` by name or number; empty is root.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Signal that asks the process to end; empty is `SIGTERM`.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
}

/// Docker writes `null` for what is not set.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_the_default_and_other_keys_are_ignored() {
        let text = r#"{"Cmd":["sh"],"Entrypoint":null,"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"User":null}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        let expected = ImageConfig {
            cmd: vec!["sh".into()],
            env: vec!["A=b".into()],
            ..ImageConfig::default()
        };
        assert_eq!(config, expected);
    }
}
