//! `serialmux register`: what a VMX file says of its containerVM.

use crate::api::request;
use crate::client::Client;
use anyhow::{Context, bail};
use base64::Engine;
use std::process::ExitCode;

/// The registration of the containerVM that a VMX file describes.
///
/// # Errors
/// What is wrong with the file, with its name and line.
pub fn registration(vmx: &std::path::Path) -> anyhow::Result<request::Register> {
    let bytes = std::fs::read(vmx).with_context(|| format!("cannot read {}", vmx.display()))?;
    let parsed =
        guestinfo::vmx::Vmx::parse(bytes).map_err(|e| anyhow::anyhow!(e.at(vmx.display())))?;
    let spec = guestinfo::Spec::from_vmx(&parsed);
    let spec = match spec {
        Ok(spec) => spec,
        Err(errors) => bail!("{}: {errors}", vmx.display()),
    };
    if spec.key.0.is_empty() {
        let fresh = base64::engine::general_purpose::STANDARD.encode(containervm::identity::key()?);
        bail!(
            "{}: no key that VM and serialmux share; add the line  guestinfo.vice./key = \"{fresh}\"  \
             (made for you just now)",
            vmx.display()
        );
    }
    let primary = spec.primary().with_context(|| vmx.display().to_string())?;
    let name =
        [parsed.get("displayName").unwrap_or_default(), spec.name.as_str(), spec.id.as_str()]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default()
            .to_owned();
    Ok(request::Register {
        id: spec.id.clone(),
        name,
        key: spec.key.0.clone(),
        plain: spec.link.protection == guestinfo::Protection::Plain,
        tty: primary.tty,
        open_stdin: primary.open_stdin,
        command: primary.cmd.args.join(" "),
    })
}

pub(super) async fn register(client: &Client, vmx: &std::path::Path) -> anyhow::Result<ExitCode> {
    let registration = registration(vmx)?;
    let id = registration.id.clone();
    client.register(registration).await?;
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}
