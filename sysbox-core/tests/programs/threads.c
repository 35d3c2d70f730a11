/* Mounts a proc on $1 in a thread that has all rights while the rest of the process has none, and then the other way round: prints what
 * becomes of either. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *target;

static void have(unsigned effective)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{effective, ~0u, 0}, {0, 0, 0}};
	if (syscall(SYS_capset, &head, data) < 0)
		printf("capset: %s\n", strerror(errno));
}

static void *try(void *effective)
{
	have(*(unsigned *)effective);
	int r = mount("proc", target, "proc", 0, NULL);
	printf("%s\n", r < 0 ? strerror(errno) : "mounted");
	return NULL;
}

int main(int argc, char **argv)
{
	target = argv[argc - 1];
	for (unsigned i = 0; i < 2; i++) {
		unsigned mine = i ? ~0u : 0, others = ~mine;
		pthread_t thread;
		have(mine);
		if (pthread_create(&thread, NULL, try, &others) != 0)
			return 1;
		pthread_join(thread, NULL);
	}
	return 0;
}
