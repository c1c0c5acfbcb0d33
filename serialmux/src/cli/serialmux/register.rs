//! `serialmux register`: what a VMX file says of its containerVM.

use crate::api::request;
use crate::client::Client;
use anyhow::{Context, bail};
use base64::Engine;
use guestinfo::Spec;
use guestinfo::spec::{NetworkSpec, SessionSpec};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// The registration of the containerVM that a VMX file describes.
///
/// # Errors
/// What is wrong with the file, with its name and line.
pub fn registration(vmx: &Path) -> anyhow::Result<request::Register> {
    let bytes = std::fs::read(vmx).with_context(|| format!("cannot read {}", vmx.display()))?;
    let parsed =
        guestinfo::vmx::Vmx::parse(bytes).map_err(|e| anyhow::anyhow!(e.at(vmx.display())))?;
    let spec = Spec::from_vmx(&parsed);
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
        image_paths: image_paths(vmx, &parsed),
        restarts: false,
        options: options(&spec, primary),
    })
}

/// What differs from a container that nothing was said about; not its variables, which may be secret and long.
fn options(spec: &Spec, primary: &SessionSpec) -> BTreeMap<String, String> {
    let SessionSpec { user, group, stop_signal, restart_policy, cmd, .. } = primary;
    let user = if group.is_empty() { user.clone() } else { format!("{user}:{group}") };
    let list = |of: fn(&NetworkSpec) -> &[String]| {
        spec.networks.values().flat_map(of).cloned().collect::<Vec<_>>().join(" ")
    };
    let ports = list(|network| &network.ports);
    let all = [
        ("hostname", spec.full_hostname()),
        ("user", user),
        ("workdir", cmd.dir.clone()),
        ("stop_signal", stop_signal.clone()),
        ("restart", restart_policy.clone()),
        ("ports", ports),
    ];
    let said = all.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The list that `containervm run` leaves beside the VM's disk, for `serialmux diff`.
fn image_paths(vmx: &Path, parsed: &guestinfo::vmx::Vmx) -> String {
    let disk = parsed.get("scsi0:0.fileName").map(|disk| vmx.with_file_name(disk));
    let paths =
        disk.map(|disk| containervm::image::paths::of(&disk)).filter(|paths| paths.is_file());
    // One whose name cannot be told is as good as none.
    let paths = paths.and_then(|paths| std::path::absolute(paths).ok());
    paths.and_then(|paths| paths.to_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) async fn register(client: &Client, vmx: &Path) -> anyhow::Result<ExitCode> {
    let registration = registration(vmx)?;
    let id = registration.id.clone();
    client.register(registration).await?;
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}
