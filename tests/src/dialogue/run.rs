//! A dialogue with two servers at a time, and what they differ in.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portico::sandbox::{Connection, Server, text};
use redis_protocol::resp2::types::BytesFrame;

use super::{Action, Dialogue, Frames, Line, Peer, Received, Script};
use crate::{Client, Compare, encode, show};

/// How long a frame that must come may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Once two servers differ, the next frame often never comes.
const PATIENCE_AFTER: Duration = Duration::from_millis(300);

/// How long nothing may come where nothing must.
const SILENCE: Duration = Duration::from_millis(80);

/// One of the two servers.
#[derive(Debug)]
pub struct Side<'s> {
    /// What a difference calls it.
    pub name: &'static str,
    /// Where clients connect.
    pub port: u16,
    /// The Redis servers behind it, or itself.
    pub servers: Vec<&'s Server>,
}

impl Side<'_> {
    fn on_all(&self, command: &[&str]) -> Result<()> {
        self.servers.iter().try_for_each(|server| server.ask(command).map(drop))
    }

    /// What a dialogue that went wrong may have left running.
    fn calm(&self) -> Result<()> {
        for server in &self.servers {
            let mut connection = server.connect()?;
            for command in [["SCRIPT", "KILL"], ["FUNCTION", "KILL"], ["CLIENT", "UNPAUSE"]] {
                // Mostly there is nothing to be killed.
                connection.call(&command)?;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        for server in &self.servers {
            let mut connection = server.connect()?;
            for command in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"]] {
                connection.ask(command)?;
            }
            connection.call(&["FUNCTION", "FLUSH"])?; // from 7.0 on
        }
        // A proxy remembers scripts too.
        Client::connect(self.port)?.call(&["SCRIPT", "FLUSH"].map(|word| word.as_bytes().to_vec())).map(drop)
    }

    /// Whether so many requests are blocked, in time.
    fn blocked(&self, count: usize, until: Instant) -> Result<bool> {
        let mut connections =
            self.servers.iter().map(|server| server.connect()).collect::<Result<Vec<_>>>()?;
        loop {
            let blocked = connections.iter_mut().map(blocked_at).sum::<Result<usize>>()?;
            if (count == 0 && blocked == 0) || (count > 0 && blocked >= count) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            sleep(Duration::from_millis(2));
        }
    }
}

fn blocked_at(connection: &mut Connection) -> Result<usize> {
    let info = connection.ask(&["INFO", "clients"])?;
    let count = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    Ok(count.context("INFO clients")?.parse()?)
}

/// What the dialogues of a file differ in, each difference legible. `only`: a part of the titles that are meant.
#[must_use]
pub fn differences(script: &Script, sides: [&Side<'_>; 2], only: Option<&str>) -> Vec<String> {
    let mut all = Vec::new();
    for dialogue in
        script.dialogues.iter().filter(|dialogue| only.is_none_or(|part| dialogue.title.contains(part)))
    {
        for (round, protocols) in dialogue.rounds() {
            let head = format!("{}.txt, {}, {round}", script.name, dialogue.title);
            let show = std::env::var_os("DIALOGUES_SHOW").map(|_| format!("\n== {head}\n"));
            let mut run = Run { dialogue, protocols, sides, differences: Vec::new(), show };
            if let Err(error) = run.whole() {
                run.differences.push(format!("given up: {error:#}"));
            }
            if let Some(show) = run.show {
                eprint!("{show}");
            }
            if run.differences.is_empty() {
                continue;
            }
            all.push(format!("{head}\n{}", run.differences.join("\n")));
            if sides.iter().any(|side| Client::connect(side.port).is_err()) {
                all.push(format!("{}.txt: the rest was not tried, a server has died", script.name));
                return all;
            }
        }
    }
    all
}

struct Run<'r> {
    dialogue: &'r Dialogue,
    protocols: BTreeMap<char, u8>,
    sides: [&'r Side<'r>; 2],
    differences: Vec<String>,
    /// What was said, if somebody wants to see it.
    show: Option<String>,
}

impl Run<'_> {
    fn whole(&mut self) -> Result<()> {
        self.sides.iter().try_for_each(|side| side.clear())?;
        let before = self.configure()?;
        let mut peers = self.sides.map(|side| Peer::new(side.port));
        let result = self.talk(&mut peers);
        drop(peers);
        self.sides.iter().try_for_each(|side| side.calm())?;
        self.restore(&before)?;
        result?;
        for side in self.sides {
            // A closed client wants nothing any more.
            if !side.blocked(0, Instant::now() + PATIENCE)? {
                self.differences
                    .push(format!("{}: something is still blocked after all have gone", side.name));
            }
        }
        Ok(())
    }

    /// Sets what the dialogue wants; returns what was set before.
    fn configure(&self) -> Result<Vec<(String, String)>> {
        let mut before = Vec::new();
        for (setting, value) in &self.dialogue.config {
            let reply = self.sides[0].servers[0].call(&["CONFIG", "GET", setting])?;
            let BytesFrame::Array(pair) = reply else { continue };
            let old = pair.get(1).and_then(text).context("such a setting")?;
            before.push((setting.clone(), old));
            self.sides.iter().try_for_each(|side| side.on_all(&["CONFIG", "SET", setting, value]))?;
        }
        Ok(before)
    }

    fn restore(&self, before: &[(String, String)]) -> Result<()> {
        for (setting, value) in before {
            self.sides.iter().try_for_each(|side| side.on_all(&["CONFIG", "SET", setting, value]))?;
        }
        Ok(())
    }

    fn talk(&mut self, peers: &mut [Peer; 2]) -> Result<()> {
        for letter in self.dialogue.connections() {
            self.open(peers, letter)?;
        }
        let mut lines = self.dialogue.lines.iter().peekable();
        while let Some(line) = lines.next() {
            // What one connection sends in lines that follow each other arrives at once.
            let mut together = vec![line];
            while let Some(next) = lines.next_if(|next| next.action.joins(&line.action)) {
                together.push(next);
            }
            if let Some(show) = &mut self.show {
                together
                    .iter()
                    .for_each(|line| show.push_str(&format!("{:>4} {}\n", line.number, line.text)));
            }
            if !self.act(peers, &together)? {
                return Ok(());
            }
        }
        self.nothing_is_left(peers)
    }

    fn open(&self, peers: &mut [Peer; 2], letter: char) -> Result<()> {
        let protocol = self.protocols.get(&letter).copied().unwrap_or(2);
        for (peer, side) in peers.iter_mut().zip(self.sides) {
            peer.open(letter, protocol).with_context(|| format!("{}: connection {letter}", side.name))?;
        }
        Ok(())
    }

    /// Does what these lines say on both sides; whether it makes sense to go on.
    fn act(&mut self, peers: &mut [Peer; 2], lines: &[&Line]) -> Result<bool> {
        let line = lines[0];
        match &line.action {
            Action::Send(letter, _) | Action::SendRaw(letter, _) => {
                for peer in peers {
                    let bytes = lines.iter().flat_map(|line| match &line.action {
                        Action::Send(_, words) => encode(&peer.named(words)),
                        Action::SendRaw(_, bytes) => bytes.clone(),
                        _ => Vec::new(),
                    });
                    let bytes: Vec<u8> = bytes.collect();
                    peer.send(*letter, &bytes);
                }
            }
            Action::Call(letter, words, compare) => {
                for peer in &mut *peers {
                    let request = encode(&peer.named(words));
                    peer.send(*letter, &request);
                }
                let reply = Frames { to: *letter, count: 1, compare: *compare, in_any_order: false };
                return self.read(peers, line, reply);
            }
            Action::Read(frames) => return self.read(peers, line, *frames),
            Action::Silent(letter) => self.silent(peers, line, *letter)?,
            Action::Closed(letter, compare) => return self.closed(peers, line, *letter, *compare),
            Action::Close(letter) => peers.iter_mut().for_each(|peer| peer.close(*letter)),
            Action::Open(letter) => self.open(peers, *letter)?,
            Action::Blocked(count) => self.blocked(line, *count)?,
            Action::Sleep(time) => sleep(*time),
        }
        Ok(true)
    }

    fn patience(&self) -> Duration {
        if self.differences.is_empty() { PATIENCE } else { PATIENCE_AFTER }
    }

    fn read(&mut self, peers: &mut [Peer; 2], line: &Line, frames: Frames) -> Result<bool> {
        let mut views = [Vec::new(), Vec::new()];
        let mut complete = true;
        for (side, (peer, views)) in peers.iter_mut().zip(&mut views).enumerate() {
            let until = Instant::now() + self.patience();
            for _ in 0..frames.count {
                let received = peer.receive(frames.to, until).with_context(|| self.place(line, side))?;
                let whole = matches!(received, Received::Frame(_));
                views.push(view(&received, frames.compare, peer));
                if !whole {
                    complete = false;
                    break;
                }
            }
            if frames.in_any_order {
                views.sort();
            }
        }
        let missing = if complete { "" } else { "\n   the rest of it was not tried" };
        if views[0] != views[1] || !complete {
            self.differ(line, &views, missing);
        }
        if let Some(show) = &mut self.show {
            views[0].iter().for_each(|view| show.push_str(&format!("     -> {}\n", self::show(view))));
        }
        Ok(complete)
    }

    fn silent(&mut self, peers: &mut [Peer; 2], line: &Line, letter: char) -> Result<()> {
        let until = Instant::now() + SILENCE;
        let mut views = [Vec::new(), Vec::new()];
        for (side, (peer, views)) in peers.iter_mut().zip(&mut views).enumerate() {
            let received = peer.receive(letter, until).with_context(|| self.place(line, side))?;
            views.push(view(&received, Compare::Bytes, peer));
        }
        let nothing = view(&Received::Nothing, Compare::Bytes, &peers[0]);
        if views.iter().flatten().any(|view| *view != nothing) {
            self.differ(line, &views, "");
        }
        Ok(())
    }

    fn closed(&mut self, peers: &mut [Peer; 2], line: &Line, letter: char, compare: Compare) -> Result<bool> {
        let mut views = [Vec::new(), Vec::new()];
        let mut closed = true;
        for (side, (peer, views)) in peers.iter_mut().zip(&mut views).enumerate() {
            let until = Instant::now() + self.patience();
            loop {
                let received = peer.receive(letter, until).with_context(|| self.place(line, side))?;
                views.push(view(&received, compare, peer));
                match received {
                    Received::Frame(_) => {}
                    Received::Nothing => {
                        closed = false;
                        break;
                    }
                    Received::End => break,
                }
            }
        }
        if views[0] != views[1] || !closed {
            self.differ(line, &views, "");
        }
        Ok(true)
    }

    fn blocked(&mut self, line: &Line, count: usize) -> Result<()> {
        for (at, side) in self.sides.iter().enumerate() {
            let is_redis = at == 0;
            let patience = if is_redis || count == 0 { self.patience() } else { PATIENCE_AFTER };
            let reached = side.blocked(count, Instant::now() + patience)?;
            // How another server blocks is its own business, but what has ended must have ended.
            if !reached && (is_redis || count == 0) {
                self.differences.push(format!("{}: not so", self.place(line, at)));
            }
        }
        Ok(())
    }

    /// What nobody read is a difference too, if it is one.
    fn nothing_is_left(&mut self, peers: &mut [Peer; 2]) -> Result<()> {
        sleep(Duration::from_millis(5));
        for letter in self.dialogue.connections() {
            for (peer, side) in peers.iter_mut().zip(self.sides) {
                if let Received::Frame(frame) = peer.receive(letter, Instant::now())? {
                    let frame = show(&frame);
                    self.differences.push(format!("at the end {} has more for {letter}: {frame}", side.name));
                }
            }
        }
        Ok(())
    }

    fn place(&self, line: &Line, side: usize) -> String {
        format!("line {}: {}, {}", line.number, line.text, self.sides[side].name)
    }

    fn differ(&mut self, line: &Line, views: &[Vec<Vec<u8>>; 2], more: &str) {
        let first = views[0].iter().zip(&views[1]).position(|(wanted, got)| wanted != got);
        let at = first.unwrap_or(views[0].len().min(views[1].len()).saturating_sub(1));
        let nothing = b"nothing more".to_vec();
        let [wanted, got] = [0, 1].map(|side| views[side].get(at).unwrap_or(&nothing));
        let alike = wanted.iter().zip(got).take_while(|(wanted, got)| wanted == got).count();
        // Long replies from shortly before they differ.
        let skip = if alike > 400 { alike - 100 } else { 0 };
        let said = |view: &[u8]| format!("{}{}", if skip > 0 { "..." } else { "" }, show(&view[skip..]));
        let which = if views[0].len() > 1 { format!(" (frame {})", at + 1) } else { String::new() };
        self.differences.push(format!(
            "line {}: {}{which}\n{:>8}: {}\n{:>8}: {}{more}",
            line.number,
            line.text,
            self.sides[0].name,
            said(wanted),
            self.sides[1].name,
            said(got)
        ));
    }
}

fn view(received: &Received, compare: Compare, peer: &Peer) -> Vec<u8> {
    match received {
        Received::Frame(frame) => compare.view(frame, peer.names()),
        Received::Nothing => b"nothing came".to_vec(),
        Received::End => b"the connection ended".to_vec(),
    }
}
