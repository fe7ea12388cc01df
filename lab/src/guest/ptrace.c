/*
 * Loaded into the guests' kernel, User-Mode Linux, so that it runs on processors of today.
 *
 * It sets the vector registers of a guest's process with ptrace(2) and hands over the 2,696 bytes that AVX-512 needs
 * (FP_SIZE in arch/x86/um/os-Linux/registers.c, Linux 6.1 and 6.12). The machine's kernel takes nothing less than all
 * that the processor has (xstateregs_set in arch/x86/kernel/fpu/regset.c), 11,008 bytes where there is AMX, and
 * answers EFAULT: init is killed and the guest does not boot. So here zeros follow what the guest's kernel gives.
 * Nothing is lost: what lies behind is AMX's alone, which a guest's process can't have, for the machine's kernel gives
 * it to those that ask (ARCH_REQ_XCOMP_PERM) and the guest's does not pass the question on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

static long (*next)(enum __ptrace_request, ...);

/* More than any processor has; the machine's kernel reads as much as it wants. Not on the stack, which is that of a
 * kernel and small. One thread of the guest's kernel runs all its processes, so no two calls meet here. */
static unsigned char whole[1 << 16] __attribute__((aligned(64)));

__attribute__((constructor)) static void find_next(void)
{
	next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	const struct iovec *given = data;
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE && given->iov_len < sizeof whole) {
		memcpy(whole, given->iov_base, given->iov_len);
		struct iovec all = { whole, sizeof whole };
		return next(request, pid, address, &all);
	}
	return next(request, pid, address, data);
}
