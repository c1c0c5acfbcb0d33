//! The variables a container starts with, in Docker's order of precedence.

use std::{fs, path::Path};

use super::{RunError, RunOptions};
use crate::image::ImageConfig;

/// Where programs are looked for when neither image nor user says; Docker's default.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `NAME=VALUE` each: defaults, then the image's, then those of files, then `-e`. A later one replaces an earlier in
/// its place; a bare `NAME` takes this process's value, or removes the variable when there is none.
pub(super) fn merged(
    options: &RunOptions,
    config: &ImageConfig,
    hostname: &str,
    host: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, RunError> {
    let mut env = Environment { variables: Vec::new(), host };
    env.set(PATH);
    env.set(&format!("HOSTNAME={hostname}"));
    if options.tty {
        env.set("TERM=xterm");
    }
    for variable in config.env.iter().filter(|variable| variable.contains('=')) {
        env.set(variable);
    }
    for file in &options.env_files {
        env.file(file)?;
    }
    for variable in &options.env {
        env.ask("-e", variable)?;
    }
    Ok(env.variables)
}

struct Environment<'a> {
    variables: Vec<String>,
    host: &'a dyn Fn(&str) -> Option<String>,
}

impl Environment<'_> {
    fn set(&mut self, variable: &str) {
        match self.position(variable) {
            Some(at) => variable.clone_into(&mut self.variables[at]),
            None => self.variables.push(variable.to_owned()),
        }
    }

    fn position(&self, variable: &str) -> Option<usize> {
        let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        self.variables.iter().position(|other| name(other) == name(variable))
    }

    /// One variable as a user writes it.
    fn ask(&mut self, origin: &str, text: &str) -> Result<(), RunError> {
        let name = text.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(RunError::Variable { origin: origin.to_owned(), text: text.to_owned() });
        }
        if text.contains('=') {
            self.set(text);
        } else if let Some(value) = (self.host)(text) {
            self.set(&format!("{text}={value}"));
        } else if let Some(at) = self.position(text) {
            self.variables.remove(at);
        }
        Ok(())
    }

    /// Lines of variables; empty ones and those that begin with `#` are skipped.
    fn file(&mut self, path: &Path) -> Result<(), RunError> {
        let text = fs::read_to_string(path)
            .map_err(|source| RunError::EnvFile { path: path.to_owned(), source })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') {
                self.ask(&format!("{}:{}", path.display(), index + 1), line)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(options: &RunOptions, image: &[&str]) -> Result<Vec<String>, RunError> {
        let config = ImageConfig {
            env: image.iter().map(|text| (*text).to_owned()).collect(),
            ..Default::default()
        };
        let host = |name: &str| (name == "FROM_HOST").then(|| "h".to_owned());
        merged(options, &config, "abc", &host)
    }

    fn asked(variables: &[&str]) -> RunOptions {
        RunOptions {
            env: variables.iter().map(|text| (*text).to_owned()).collect(),
            ..RunOptions::default()
        }
    }

    #[test]
    fn defaults_come_first_and_later_ones_win() {
        let options = RunOptions { tty: true, ..asked(&["A=user", "FROM_HOST", "EMPTY="]) };
        let expected =
            [PATH, "HOSTNAME=abc", "TERM=xterm", "A=user", "B=image", "FROM_HOST=h", "EMPTY="];
        assert_eq!(env(&options, &["A=image", "B=image"]).unwrap(), expected);
        assert_eq!(env(&asked(&["PATH=/x"]), &["PATH=/y"]).unwrap(), ["PATH=/x", "HOSTNAME=abc"]);
    }

    #[test]
    fn a_name_the_host_does_not_have_is_removed() {
        assert_eq!(env(&asked(&["A"]), &["A=image"]).unwrap(), [PATH, "HOSTNAME=abc"]);
    }

    #[test]
    fn files_have_comments_and_faults_with_line_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        fs::write(&path, "# comment\n\n  A=1 # kept\nFROM_HOST\nB=x=y\n").unwrap();
        let options = RunOptions { env_files: vec![path.clone()], ..asked(&["B=user"]) };
        let expected = [PATH, "HOSTNAME=abc", "A=1 # kept", "FROM_HOST=h", "B=user"];
        assert_eq!(env(&options, &[]).unwrap(), expected);
        fs::write(&path, "A=1\nnot a=variable\n").unwrap();
        let text = env(&options, &[]).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{}:2: \"not a=variable\"", path.display())), "{text}");
        assert!(env(&asked(&["=x"]), &[]).unwrap_err().to_string().starts_with("-e: "));
    }
}
