//! Durable records: a folder per stream, in it numbered segments. One thread writes for all, with one sync per segment
//! for all that waits. Segments are only appended to; the oldest go when the stream is too large or they are too old.

use super::{Records, segment};
use maru_base::{Error, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
};

/// How long a stream's records are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// The oldest segments go when a stream has more bytes.
    pub bytes: u64,
    /// A segment goes when its newest record is older.
    pub days: u32,
    /// Size at which a segment is closed and the next begun.
    pub segment_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            days: 90,
            segment_bytes: 8 << 20,
        }
    }
}

/// Records that may wait for the writer.
const QUEUE: usize = 4_096;
const GROUP: usize = 512;

/// A place: segment and offset.
type Place = (u64, u64);

#[derive(Default)]
struct Stream {
    /// Segment → durable length.
    segments: BTreeMap<u64, u64>,
    /// Places by subject; made when it is first asked for, because most streams are only written.
    index: Option<HashMap<String, Vec<Place>>>,
}

struct Shared {
    folder: PathBuf,
    retention: Retention,
    streams: Mutex<HashMap<String, Stream>>,
}

struct Append {
    stream: String,
    subject: String,
    time: i64,
    record: Value,
    done: oneshot::Sender<io::Result<()>>,
}

/// See the module.
pub struct FileRecords {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Append>>,
    room: Semaphore,
    writer: Option<JoinHandle<()>>,
}

fn segment_path(folder: &Path, stream: &str, number: u64) -> PathBuf {
    folder.join(stream).join(format!("{number:016}.rec"))
}

fn is_name(stream: &str) -> bool {
    !stream.is_empty()
        && stream
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<String, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn path(&self, stream: &str, number: u64) -> PathBuf {
        segment_path(&self.folder, stream, number)
    }

    fn places(&self, stream: &str, subject: &str, limit: usize) -> io::Result<Vec<Place>> {
        let mut streams = self.streams();
        let Some(state) = streams.get_mut(stream) else {
            return Ok(Vec::new());
        };
        if state.index.is_none() {
            let mut index: HashMap<String, Vec<Place>> = HashMap::new();
            for (&number, &durable) in &state.segments {
                segment::scan(&self.path(stream, number), |at, record| {
                    if at < durable {
                        index.entry(record.subject).or_default().push((number, at));
                    }
                })?;
            }
            state.index = Some(index);
        }
        let all = state
            .index
            .as_ref()
            .and_then(|index| index.get(subject))
            .map_or(&[][..], Vec::as_slice);
        Ok(all[all.len().saturating_sub(limit)..].to_vec())
    }

    fn of_subject(&self, stream: &str, subject: &str, limit: usize) -> io::Result<Vec<Value>> {
        let places = self.places(stream, subject, limit)?;
        let mut found = Vec::with_capacity(places.len());
        let mut open: Option<(u64, File)> = None;
        for (number, at) in places {
            if open.as_ref().is_none_or(|(n, _)| *n != number) {
                open = match File::open(self.path(stream, number)) {
                    Ok(file) => Some((number, file)),
                    // Its time was over since the index was read.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                    Err(e) => return Err(e),
                };
            }
            if let Some((_, file)) = &open {
                found.push(segment::read(file, at)?.value()?);
            }
        }
        Ok(found)
    }

    fn tail(&self, stream: &str, limit: usize) -> io::Result<Vec<Value>> {
        let segments = self
            .streams()
            .get(stream)
            .map(|s| s.segments.clone())
            .unwrap_or_default();
        let mut newest_first = Vec::new();
        for (number, durable) in segments.into_iter().rev() {
            if newest_first.len() >= limit {
                break;
            }
            let mut here = Vec::new();
            match segment::scan(&self.path(stream, number), |at, record| {
                here.extend((at < durable).then_some(record))
            }) {
                Ok(_) => newest_first.extend(here.into_iter().rev()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        newest_first.truncate(limit);
        newest_first.iter().rev().map(segment::Record::value).collect()
    }
}

impl FileRecords {
    /// Opens (or makes) the folder. What a crash left half written at the end of a stream is dropped.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: impl Into<PathBuf>, retention: Retention) -> Result<Self> {
        Self::start(folder.into(), retention).map_err(|e| Error::internal("the records cannot be opened", e))
    }

    fn start(folder: PathBuf, retention: Retention) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut streams = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|n| is_name(n)) {
                streams.insert(name.to_owned(), load(&entry.path())?);
            }
        }
        let shared = Arc::new(Shared {
            folder,
            retention,
            streams: Mutex::new(streams),
        });
        let (queue, appends) = mpsc::channel();
        let writer = Writer {
            shared: Arc::clone(&shared),
            active: HashMap::new(),
        };
        let thread = std::thread::Builder::new().name("records-writer".to_owned());
        let writer = Some(thread.spawn(move || writer.run(&appends))?);
        Ok(Self {
            shared,
            queue: Some(queue),
            room: Semaphore::new(QUEUE),
            writer,
        })
    }

    async fn read(&self, read: impl FnOnce(&Shared) -> io::Result<Vec<Value>> + Send + 'static) -> Result<Vec<Value>> {
        let shared = Arc::clone(&self.shared);
        let failed = |e: io::Error| Error::internal("The records could not be read.", e);
        spawn_blocking(move || read(&shared))
            .await
            .map_err(|e| failed(io::Error::other(e)))?
            .map_err(failed)
    }
}

/// The segments of a stream; a torn tail of the last one is cut off.
fn load(folder: &Path) -> io::Result<Stream> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(number) = name
            .to_str()
            .and_then(|n| n.strip_suffix(".rec"))
            .and_then(|n| n.parse().ok())
        {
            segments.insert(number, entry.metadata()?.len());
        }
    }
    if let Some(mut last) = segments.last_entry() {
        let path = folder.join(format!("{:016}.rec", last.key()));
        let good = segment::scan(&path, |_, _| {})?;
        if good < *last.get() {
            tracing::warn!(path = %path.display(), lost = last.get() - good, "dropping a torn tail");
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(good)?;
            file.sync_all()?;
            last.insert(good);
        }
    }
    Ok(Stream { segments, index: None })
}

impl Drop for FileRecords {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait::async_trait]
impl Records for FileRecords {
    async fn append(&self, stream: &str, subject: &str, record: Value) -> Result<()> {
        let stopped = || Error::unavailable("The records' writer has stopped.");
        if !is_name(stream) {
            return Err(Error::internal("a stream of records has a bad name", stream.to_owned()));
        }
        let _room = self.room.acquire().await.map_err(|_| stopped())?;
        let (done, answer) = oneshot::channel();
        let (stream, subject) = (stream.to_owned(), subject.to_owned());
        let append = Append {
            stream,
            subject,
            time: maru_base::time::now().as_millisecond(),
            record,
            done,
        };
        self.queue
            .as_ref()
            .and_then(|q| q.send(append).ok())
            .ok_or_else(stopped)?;
        answer
            .await
            .map_err(|_| stopped())?
            .map_err(|e| Error::internal("The record could not be stored.", e))
    }
    async fn of_subject(&self, stream: &str, subject: &str, limit: usize) -> Result<Vec<Value>> {
        let (stream, subject) = (stream.to_owned(), subject.to_owned());
        self.read(move |shared| shared.of_subject(&stream, &subject, limit))
            .await
    }
    async fn tail(&self, stream: &str, limit: usize) -> Result<Vec<Value>> {
        let stream = stream.to_owned();
        self.read(move |shared| shared.tail(&stream, limit)).await
    }
}

/// A segment that is being written.
struct Active {
    file: File,
    number: u64,
    length: u64,
}

struct Writer {
    shared: Arc<Shared>,
    active: HashMap<String, Active>,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Append>) {
        while let Ok(first) = queue.recv() {
            let group: Vec<_> = std::iter::once(first).chain(queue.try_iter()).take(GROUP).collect();
            self.write(group);
        }
    }

    fn write(&mut self, group: Vec<Append>) {
        let written: Vec<_> = group.iter().map(|append| self.put(append)).collect();
        let mut broken: HashMap<String, String> = HashMap::new();
        let touched: HashSet<_> = group.iter().map(|a| a.stream.clone()).collect();
        for stream in touched {
            if let Some(Err(e)) = self.active.get(&stream).map(|active| active.file.sync_data()) {
                // What of this segment is on the disk is unknown: it is not written to again.
                self.active.remove(&stream);
                broken.insert(stream, e.to_string());
            }
        }
        {
            let mut streams = self.shared.streams();
            for (append, place) in group.iter().zip(&written) {
                if let (Ok((number, at, end)), None) = (place, broken.get(&append.stream)) {
                    let state = streams.entry(append.stream.clone()).or_default();
                    state.segments.insert(*number, *end);
                    if let Some(index) = &mut state.index {
                        index.entry(append.subject.clone()).or_default().push((*number, *at));
                    }
                }
            }
        }
        for (append, place) in group.into_iter().zip(written) {
            let answer = match broken.get(&append.stream) {
                Some(error) => Err(io::Error::other(error.clone())),
                None => place.map(drop),
            };
            let _ = append.done.send(answer);
        }
    }

    /// Appends one record without syncing: segment, start, end.
    fn put(&mut self, append: &Append) -> io::Result<(u64, u64, u64)> {
        let frame = segment::frame(append.time, &append.subject, &append.record)?;
        let full = self
            .active
            .get(&append.stream)
            .is_none_or(|a| a.length >= self.shared.retention.segment_bytes);
        if full {
            self.next_segment(&append.stream)?;
        }
        let Some(active) = self.active.get_mut(&append.stream) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let at = active.length;
        if let Err(e) = active.file.write_all(&frame) {
            // Half a record may be there: cut it off, or leave this segment alone for good.
            if active.file.set_len(at).is_err() {
                self.active.remove(&append.stream);
            }
            return Err(e);
        }
        active.length += frame.len() as u64;
        Ok((active.number, at, active.length))
    }

    /// Closes the stream's segment, begins the next one (or goes on with the last one after a start), and lets go of
    /// what is too old or too much.
    fn next_segment(&mut self, stream: &str) -> io::Result<()> {
        let limit = self.shared.retention.segment_bytes;
        let folder = self.shared.folder.join(stream);
        if let Some(active) = self.active.remove(stream) {
            active.file.sync_data()?;
            self.retain(stream)?;
            return self.begin(stream, active.number + 1);
        }
        let last = self
            .shared
            .streams()
            .get(stream)
            .and_then(|s| s.segments.last_key_value().map(|(n, l)| (*n, *l)));
        match last {
            Some((number, length)) if length < limit => {
                let file = OpenOptions::new().append(true).open(self.shared.path(stream, number))?;
                // Only what is known to be durable is there to be appended to.
                file.set_len(length)?;
                self.active.insert(stream.to_owned(), Active { file, number, length });
                Ok(())
            }
            Some((number, _)) => self.begin(stream, number + 1),
            None => {
                fs::create_dir_all(&folder)?;
                File::open(&self.shared.folder)?.sync_all()?;
                self.begin(stream, 0)
            }
        }
    }

    fn begin(&mut self, stream: &str, number: u64) -> io::Result<()> {
        let path = self.shared.path(stream, number);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.set_len(0)?;
        File::open(self.shared.folder.join(stream))?.sync_all()?;
        self.active.insert(
            stream.to_owned(),
            Active {
                file,
                number,
                length: 0,
            },
        );
        Ok(())
    }

    fn retain(&self, stream: &str) -> io::Result<()> {
        let Retention { bytes, days, .. } = self.shared.retention;
        let oldest_kept = maru_base::time::now().as_millisecond() - i64::from(days) * 86_400_000;
        let mut streams = self.shared.streams();
        let Some(state) = streams.get_mut(stream) else {
            return Ok(());
        };
        let mut total: u64 = state.segments.values().sum();
        while let Some((&number, &length)) = state.segments.first_key_value() {
            let path = segment_path(&self.shared.folder, stream, number);
            let mut newest = i64::MIN;
            if total <= bytes {
                segment::scan(&path, |_, record| newest = newest.max(record.time))?;
                if newest >= oldest_kept {
                    break;
                }
            }
            fs::remove_file(&path)?;
            total -= length;
            state.segments.remove(&number);
            if let Some(index) = &mut state.index {
                index.retain(|_, places| {
                    places.retain(|(n, _)| *n != number);
                    !places.is_empty()
                });
            }
        }
        Ok(())
    }
}
