//! Container images made on the spot: one layer, no registry.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What pods of local clusters run: a shell with its tools.
pub const BUSYBOX: &str = "drover.local/busybox:1";
/// The agent of this build.
pub const AGENT: &str = "drover.local/agent:dev";
const FOLDERS: [&str; 8] = ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"];
/// Sleeps, and ends at once when told to: the pods' sandbox runs it too.
const COMMAND: [&str; 3] = ["/bin/sh", "-c", "trap exit TERM INT; while :; do sleep 3600 & wait; done"];

/// Writes an image of this machine's static busybox as an archive that containerd imports.
pub fn write_busybox(path: &Path) -> anyhow::Result<()> {
    let busybox = find_busybox()?;
    let list = Command::new(&busybox).arg("--list").output().context("failed to run busybox")?;
    let mut layer = Layer::new();
    for folder in FOLDERS {
        layer.folder(folder)?;
    }
    layer.file("bin/busybox", 0o755, &std::fs::read(&busybox)?)?;
    for applet in String::from_utf8(list.stdout)?.lines().filter(|applet| *applet != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    let config = json!({ "Cmd": COMMAND, "Env": ["PATH=/bin"] });
    write_image(path, BUSYBOX, layer, config)
}

fn find_busybox() -> anyhow::Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let found = places.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_owned).context("busybox is missing: deploy/local/packages says how to get it")
}

/// Writes an image of the agent: the program and the libraries that it needs, for a user without rights.
pub fn write_agent(path: &Path, program: &Path) -> anyhow::Result<()> {
    let mut layer = Layer::new();
    layer.file("drover-agent", 0o755, &std::fs::read(program)?)?;
    for library in libraries(program)? {
        let name = library.strip_prefix("/").context("ldd names relative paths")?;
        layer.file(&name.to_string_lossy(), 0o755, &std::fs::read(&library)?)?;
    }
    layer.file("etc/passwd", 0o644, b"drover:x:65532:65532:drover:/:/\n")?;
    write_image(path, AGENT, layer, json!({ "Entrypoint": ["/drover-agent"], "User": "65532:65532" }))
}

/// What a program is linked with, as `ldd` says: `libc.so.6 => /lib/libc.so.6 (0x...)`.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("failed to run ldd")?;
    let words = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(String::from_utf8(output.stdout)?.lines().filter_map(words).collect())
}

/// The file system of an image, in the making.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn folder(&mut self, name: &str) -> anyhow::Result<()> {
        self.entry(name, EntryType::Directory, 0o755, &[])
    }

    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        self.entry(name, EntryType::Regular, mode, bytes)
    }

    fn link(&mut self, name: &str, target: &str) -> anyhow::Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        Ok(self.0.append_link(&mut header, name, target)?)
    }

    fn entry(&mut self, name: &str, kind: EntryType, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = header(kind, mode, bytes.len());
        Ok(self.0.append_data(&mut header, name, bytes)?)
    }
}

/// The same bytes for the same content: no time, no owner.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

fn write_image(path: &Path, name: &str, layer: Layer, config: serde_json::Value) -> anyhow::Result<()> {
    let layer = layer.0.into_inner()?;
    let digest = hex(&layer);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no images are made for {other}"),
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        "history": [{}],
    })
    .to_string();
    let (config_name, layer_name) =
        (format!("{}.json", hex(config.as_bytes())), format!("{digest}/layer.tar"));
    let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": [layer_name] }]).to_string();
    let mut archive = Builder::new(Vec::new());
    for (name, bytes) in
        [(&*layer_name, &*layer), (&config_name, config.as_bytes()), ("manifest.json", manifest.as_bytes())]
    {
        archive.append_data(&mut header(EntryType::Regular, 0o644, bytes.len()), name, bytes)?;
    }
    let mut file =
        std::fs::File::create(path).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(file.write_all(&archive.into_inner()?)?)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
