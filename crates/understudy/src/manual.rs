//! Completions for shells, and man pages: both made from the command line's own definition.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Prints what a shell needs to complete our command lines.
pub(crate) fn completions(mut command: Command, shell: Shell) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "understudy", &mut script);
    match io::stdout().write_all(&script) {
        // `understudy completions bash | head`
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a page for the program and one for each of its commands into `folder`, which is made if need be; how many.
pub(crate) fn man_pages(command: Command, folder: &Path) -> io::Result<usize> {
    fs::create_dir_all(folder)?;
    let mut command = command.name("understudy");
    command.build();
    page(&command, "understudy", folder)
}

fn page(command: &Command, name: &str, folder: &Path) -> io::Result<usize> {
    let mut text = Vec::new();
    let titled = command.clone().display_name(name.to_owned());
    clap_mangen::Man::new(titled)
        .title(name.to_ascii_uppercase())
        .manual("Understudy")
        .render(&mut text)?;
    fs::write(folder.join(format!("{name}.1")), text)?;
    let mut pages = 1;
    let commands = command.get_subcommands();
    for command in commands.filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        pages += page(command, &format!("{name}-{}", command.get_name()), folder)?;
    }
    Ok(pages)
}
