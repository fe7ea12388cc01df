//! The status monitor's protocol: NSM, program 100024 version 1 (X/Open XNFS; nfs-utils support/nsm/sm_inter.x).

use crate::limits;
use crate::rpc::{Credential, encode_call};
use crate::state::StateNumber;
use crate::xdr::{DecodeError, Problem, Reader, Writer};

/// The program.
pub const PROGRAM: u32 = 100_024;
/// Its only version.
pub const VERSION: u32 = 1;
/// Bytes of the cookie that comes back in the downcall.
pub const COOKIE_BYTES: usize = 16;

/// The procedures of a status monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Procedure {
    /// Nothing.
    Null = 0,
    /// SM_STAT
    Stat = 1,
    /// SM_MON
    Mon = 2,
    /// SM_UNMON
    Unmon = 3,
    /// SM_UNMON_ALL
    UnmonAll = 4,
    /// SM_SIMU_CRASH
    SimuCrash = 5,
    /// SM_NOTIFY
    Notify = 6,
}

impl Procedure {
    /// The procedure of this number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        [Self::Null, Self::Stat, Self::Mon, Self::Unmon, Self::UnmonAll, Self::SimuCrash, Self::Notify]
            .into_iter()
            .find(|procedure| *procedure as u32 == number)
    }
}

/// SM_NOTIFY: this server was restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify<'a> {
    /// The name of the server that was restarted.
    pub mon_name: &'a str,
    /// Its new state number.
    pub state: StateNumber,
}

/// my_id: the server that wants to be told, and the call that tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MyId<'a> {
    /// the server's own name
    pub my_name: &'a str,
    /// program of the downcall
    pub prog: u32,
    /// its version
    pub vers: u32,
    /// its procedure
    pub proc_: u32,
}

/// mon_id: the client that is watched, and the server that watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonId<'a> {
    /// the client
    pub mon_name: &'a str,
    /// for whom
    pub my_id: MyId<'a>,
}

/// mon: SM_MON's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonArgs<'a> {
    /// the client that is watched, and the server that watches
    pub mon_id: MonId<'a>,
    /// what comes back in the downcall
    pub cookie: [u8; COOKIE_BYTES],
}

/// sm_stat_res: SM_STAT's and SM_MON's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatResult {
    /// STAT_SUCC
    pub ok: bool,
    /// the status monitor's own number; -1 where it failed
    pub state: StateNumber,
}

/// The call that tells lockd that a client was restarted: NLM procedure 16 (Linux and Sun, private).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downcall<'a> {
    /// the client, as it was registered
    pub mon_name: &'a str,
    /// the client's new number
    pub state: StateNumber,
    /// what SM_MON brought
    pub cookie: [u8; COOKIE_BYTES],
}

/// Encodes a whole SM_NOTIFY call.
#[must_use]
pub fn encode_notify_call(xid: u32, name: &str, state: StateNumber) -> Vec<u8> {
    let args = Notify { mon_name: name, state }.encode();
    encode_call(xid, PROGRAM, VERSION, Procedure::Notify as u32, &Credential::None, &args)
}

impl<'a> Notify<'a> {
    /// Encodes the arguments.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.string(self.mon_name).u32(self.state.0);
        writer.into_bytes()
    }

    /// Decodes the arguments.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let mon_name = string(&mut reader, "stat_chge mon_name")?;
        let state = StateNumber(reader.u32("stat_chge state")?);
        reader.finish("stat_chge")?;
        Ok(Self { mon_name, state })
    }
}

impl<'a> MyId<'a> {
    /// Encodes it: SM_UNMON_ALL's arguments.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// Decodes SM_UNMON_ALL's arguments.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let read = Self::read(&mut reader)?;
        reader.finish("my_id")?;
        Ok(read)
    }

    fn write(&self, writer: &mut Writer) {
        writer.string(self.my_name).u32(self.prog).u32(self.vers).u32(self.proc_);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let my_name = string(reader, "my_name")?;
        Ok(Self {
            my_name,
            prog: reader.u32("my_prog")?,
            vers: reader.u32("my_vers")?,
            proc_: reader.u32("my_proc")?,
        })
    }
}

impl<'a> MonId<'a> {
    /// Encodes it: SM_UNMON's arguments.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// Decodes SM_UNMON's arguments.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let read = Self::read(&mut reader)?;
        reader.finish("mon_id")?;
        Ok(read)
    }

    fn write(&self, writer: &mut Writer) {
        writer.string(self.mon_name);
        self.my_id.write(writer);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { mon_name: string(reader, "mon_name")?, my_id: MyId::read(reader)? })
    }
}

impl<'a> MonArgs<'a> {
    /// Encodes the arguments.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.mon_id.write(&mut writer);
        writer.opaque_fixed(&self.cookie);
        writer.into_bytes()
    }

    /// Decodes the arguments.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let mon_id = MonId::read(&mut reader)?;
        let cookie = cookie(&mut reader)?;
        reader.finish("mon")?;
        Ok(Self { mon_id, cookie })
    }
}

/// Encodes SM_STAT's arguments: sm_name.
#[must_use]
pub fn encode_stat_args(mon_name: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.string(mon_name);
    writer.into_bytes()
}

/// Decodes SM_STAT's arguments.
///
/// # Errors
/// Where the bytes are none.
pub fn decode_stat_args(args: &[u8]) -> Result<&str, DecodeError> {
    let mut reader = Reader::new(args);
    let name = string(&mut reader, "sm_name")?;
    reader.finish("sm_name")?;
    Ok(name)
}

impl StatResult {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(u32::from(!self.ok)).u32(self.state.0);
        writer.into_bytes()
    }

    /// Decodes it.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(result: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(result);
        let ok = match reader.u32("res_stat")? {
            0 => true,
            1 => false,
            found => {
                let problem = Problem::Value { expected: "0 (STAT_SUCC) or 1 (STAT_FAIL)", found };
                return Err(DecodeError { type_name: "res_stat", problem });
            }
        };
        let state = StateNumber(reader.u32("state")?);
        reader.finish("sm_stat_res")?;
        Ok(Self { ok, state })
    }
}

/// Encodes sm_stat: SM_UNMON's and SM_UNMON_ALL's result.
#[must_use]
pub fn encode_state_result(state: StateNumber) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(state.0);
    writer.into_bytes()
}

/// Decodes sm_stat.
///
/// # Errors
/// Where the bytes are none.
pub fn decode_state_result(result: &[u8]) -> Result<StateNumber, DecodeError> {
    let mut reader = Reader::new(result);
    let state = StateNumber(reader.u32("sm_stat")?);
    reader.finish("sm_stat")?;
    Ok(state)
}

impl<'a> Downcall<'a> {
    /// Encodes the arguments.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.string(self.mon_name).u32(self.state.0).opaque_fixed(&self.cookie);
        writer.into_bytes()
    }

    /// Decodes the arguments.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let mon_name = string(&mut reader, "nlm_reboot mon_name")?;
        let state = StateNumber(reader.u32("nlm_reboot state")?);
        let cookie = cookie(&mut reader)?;
        reader.finish("nlm_reboot")?;
        Ok(Self { mon_name, state, cookie })
    }
}

fn string<'a>(reader: &mut Reader<'a>, type_name: &'static str) -> Result<&'a str, DecodeError> {
    reader.string(type_name, limits::STRING_BYTES_MAX)
}

fn cookie(reader: &mut Reader<'_>) -> Result<[u8; COOKIE_BYTES], DecodeError> {
    let bytes = reader.opaque_fixed("priv", COOKIE_BYTES)?;
    let mut cookie = [0; COOKIE_BYTES];
    cookie.copy_from_slice(bytes);
    Ok(cookie)
}
