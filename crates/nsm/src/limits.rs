//! Every bound of the formats and messages, in one place: none of these is a number from the wire.

/// Bytes of a name or string: SM_MAXSTRLEN and LM_MAXSTRLEN of X/Open NSM and NLM.
pub const STRING_BYTES_MAX: usize = 1024;

/// Programs that one rpcbind knows, once for each version and transport: a busy server has about a hundred.
pub const REGISTERED_MAX: usize = 1024;

/// Bytes of a netobj: MAXNETOBJ_SZ.
pub const NETOBJ_BYTES_MAX: usize = 1024;

/// Bytes of an authentication body (RFC 5531, section 8.2).
pub const AUTH_BYTES_MAX: usize = 400;

/// Groups of an AUTH_SYS credential (RFC 5531, appendix A).
pub const GROUPS_MAX: usize = 16;

/// Bytes of one RPC message over TCP, all fragments joined: far above anything these programs send.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Fragments of one RPC message over TCP. Kernels send one; a library sends one for each of its buffers of some kilobytes.
pub const FRAGMENTS_MAX: usize = 64;

/// Bytes of a monitor record's file name: NAME_MAX.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Bytes of a line of a monitor record (support/nsm/file.c): the numbers and the cookie, two names, a blank and a newline.
pub const LINE_BYTES_MAX: usize = 69 + FILE_NAME_BYTES_MAX + 1 + STRING_BYTES_MAX + 1;

/// Bytes of one monitor record file.
pub const RECORD_FILE_BYTES_MAX: usize = 64 * 1024;

/// Lines of one monitor record file.
pub const RECORD_LINES_MAX: usize = 256;
