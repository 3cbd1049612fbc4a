/* A libnvidia-ml.so.1 that tells what a scenario file says, for tests of the node agent.
 *
 * The ABI (names, struct layouts, versions, return codes) is as the ctypes declarations of nvidia-ml-py have it; no header
 * of NVIDIA is needed. The file is named by STANDIN_NVML and read again whenever it has changed, so that a test can break
 * things while the agent runs. Lines, of which the last counts:
 *
 *   system KEY VALUE            driver, cuda (12040), nvml
 *   gpu ID KEY VALUE            ID is an index, or 0.1 for MIG device 1 of GPU 0; a KEY that is not there is NOT_SUPPORTED
 *   gpu ID field.N[.SCOPE] V    field values
 *   process ID KIND PID BYTES   KIND is compute, graphics or mps; BYTES may be -
 *   fail ID FUNCTION CODE       FUNCTION fails for this GPU; both may be *
 *   hang ID FUNCTION            FUNCTION does not return while the line is there
 *   crash ID FUNCTION           FUNCTION ends the process with SIGSEGV
 *   xid SERIAL ID NUMBER [GI]   an Xid, of GPU instance GI; told once to each set that ID registered with before the line was there
 *
 * The number of GPUs is the one of the moment of nvmlInit, as with the real library. With -DOLD_DRIVER the functions that
 * came with the 510 and later drivers are missing.
 */
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    VERSION_MISMATCH = 25
};
enum { MAX_LINES = 16384, MAX_DEVICES = 256, WORD = 96 };

struct line {
    char kind[12], id[WORD], key[WORD], value[WORD];
};
struct device {
    char id[16];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct line *lines;
static int line_count;
static struct stat seen;
static struct device devices[MAX_DEVICES];
static int device_count;
static int gpu_count = -1; /* of the moment of nvmlInit */

static void rest_of_time(int milliseconds) {
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&pause, NULL);
}

static int has_changed(struct stat *now) {
    const char *path = getenv("STANDIN_NVML");
    if (path == NULL || stat(path, now) != 0)
        return 0;
    return now->st_ino != seen.st_ino || now->st_size != seen.st_size || now->st_mtim.tv_sec != seen.st_mtim.tv_sec ||
           now->st_mtim.tv_nsec != seen.st_mtim.tv_nsec;
}

/* Called with the lock held. */
static void refresh(void) {
    struct stat now;
    if (!has_changed(&now))
        return;
    FILE *file = fopen(getenv("STANDIN_NVML"), "r");
    if (file == NULL)
        return;
    if (lines == NULL)
        lines = calloc(MAX_LINES, sizeof *lines);
    seen = now;
    line_count = 0;
    char text[512];
    while (line_count < MAX_LINES && fgets(text, sizeof text, file) != NULL) {
        struct line *line = &lines[line_count];
        memset(line, 0, sizeof *line);
        char *at = text;
        int length = 0;
        if (sscanf(at, "%11s%n", line->kind, &length) != 1 || line->kind[0] == '#')
            continue;
        at += length;
        if (strcmp(line->kind, "system") != 0 && sscanf(at, "%95s%n", line->id, &length) == 1)
            at += length;
        if (sscanf(at, "%95s%n", line->key, &length) == 1)
            at += length;
        at += strspn(at, " ");
        at[strcspn(at, "\n")] = 0;
        snprintf(line->value, sizeof line->value, "%.95s", at);
        line_count++;
    }
    fclose(file);
}

static int matches(const char *pattern, const char *word) {
    return strcmp(pattern, "*") == 0 || strcmp(pattern, word) == 0;
}

static int look_up(const char *kind, const char *id, const char *key, char *value) {
    int found = 0;
    pthread_mutex_lock(&lock);
    refresh();
    for (int i = 0; i < line_count; i++)
        if (strcmp(lines[i].kind, kind) == 0 && strcmp(lines[i].id, id) == 0 && strcmp(lines[i].key, key) == 0) {
            memcpy(value, lines[i].value, WORD);
            found = 1;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

/* What the scenario has in store for a call: SUCCESS, or the code to return. */
static int fate(const char *id, const char *function) {
    for (;;) {
        int code = SUCCESS, hang = 0, crash = 0;
        pthread_mutex_lock(&lock);
        refresh();
        for (int i = 0; i < line_count; i++) {
            if (!matches(lines[i].id, id) || !matches(lines[i].key, function))
                continue;
            if (strcmp(lines[i].kind, "fail") == 0)
                code = atoi(lines[i].value);
            hang |= strcmp(lines[i].kind, "hang") == 0;
            crash |= strcmp(lines[i].kind, "crash") == 0;
        }
        pthread_mutex_unlock(&lock);
        if (crash)
            raise(SIGSEGV);
        if (!hang)
            return code;
        rest_of_time(20);
    }
}

#define FATE(id)                                                                                                       \
    do {                                                                                                               \
        if (gpu_count < 0)                                                                                             \
            return UNINITIALIZED;                                                                                      \
        int code_ = fate(id, __func__);                                                                                \
        if (code_ != SUCCESS)                                                                                          \
            return code_;                                                                                              \
    } while (0)

static int text(const char *kind, const char *id, const char *key, char *out, unsigned size) {
    char value[WORD];
    if (!look_up(kind, id, key, value))
        return NOT_SUPPORTED;
    if (strlen(value) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}

static int number(const char *id, const char *key, long long *out) {
    char value[WORD];
    if (!look_up("gpu", id, key, value))
        return NOT_SUPPORTED;
    *out = strtoll(value, NULL, 0);
    return SUCCESS;
}

static int number32(const struct device *device, const char *key, unsigned *out) {
    long long value;
    int code = number(device->id, key, &value);
    if (code == SUCCESS)
        *out = (unsigned)value;
    return code;
}

static struct device *device_of(const char *id) {
    struct device *device = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < device_count; i++)
        if (strcmp(devices[i].id, id) == 0)
            device = &devices[i];
    if (device == NULL && device_count < MAX_DEVICES) {
        device = &devices[device_count++];
        snprintf(device->id, sizeof device->id, "%s", id);
    }
    pthread_mutex_unlock(&lock);
    return device;
}

/* --- system --- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int code = fate("*", __func__);
    if (code != SUCCESS)
        return code;
    pthread_mutex_lock(&lock);
    refresh();
    gpu_count = 0;
    for (int i = 0; i < line_count; i++)
        if (strcmp(lines[i].kind, "gpu") == 0 && strchr(lines[i].id, '.') == NULL && atoi(lines[i].id) >= gpu_count)
            gpu_count = atoi(lines[i].id) + 1;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int nvmlShutdown(void) {
    gpu_count = -1;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    static __thread char words[32];
    snprintf(words, sizeof words, "error %d", code);
    return words;
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    FATE("*");
    return text("system", "", "driver", out, size);
}

/* As with the real library: the version of the library is known without a driver. */
int nvmlSystemGetNVMLVersion(char *out, unsigned size) {
    return text("system", "", "nvml", out, size);
}

int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    char value[WORD];
    FATE("*");
    if (!look_up("system", "", "cuda", value))
        return NOT_SUPPORTED;
    *out = atoi(value);
    return SUCCESS;
}

int nvmlSystemGetProcessName(unsigned pid, char *out, unsigned size) {
    FATE("*");
    snprintf(out, size, "process-%u --api-key hidden", pid);  /* as one that has written its arguments into its title */
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *out) {
    FATE("*");
    *out = (unsigned)gpu_count;
    return SUCCESS;
}

/* --- identity --- */

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **out) {
    char id[16];
    snprintf(id, sizeof id, "%u", index);
    FATE(id);
    if ((int)index >= gpu_count)
        return INVALID_ARGUMENT;
    *out = device_of(id);
    return SUCCESS;
}

int nvmlDeviceGetUUID(struct device *device, char *out, unsigned size) {
    FATE(device->id);
    return text("gpu", device->id, "uuid", out, size);
}

int nvmlDeviceGetName(struct device *device, char *out, unsigned size) {
    FATE(device->id);
    return text("gpu", device->id, "name", out, size);
}

struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};

int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci *out) {
    FATE(device->id);
    memset(out, 0, sizeof *out);
    return text("gpu", device->id, "bus", out->bus_id, sizeof out->bus_id);
}

/* --- plain numbers --- */

#define NUMBER(function, key)                                                                                          \
    int function(struct device *device, unsigned *out) {                                                               \
        FATE(device->id);                                                                                              \
        return number32(device, key, out);                                                                             \
    }

NUMBER(nvmlDeviceGetMinorNumber, "minor")
NUMBER(nvmlDeviceGetPowerUsage, "power")
NUMBER(nvmlDeviceGetEnforcedPowerLimit, "power-limit")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, "pcie-gen")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, "pcie-max-gen")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, "pcie-width")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, "pcie-max-width")
NUMBER(nvmlDeviceGetPcieReplayCounter, "pcie-replays")
NUMBER(nvmlDeviceGetPersistenceMode, "persistence")
NUMBER(nvmlDeviceGetComputeMode, "compute-mode")
NUMBER(nvmlDeviceGetMaxMigDeviceCount, "mig-max")

#define NUMBER_OF(function, prefix)                                                                                    \
    int function(struct device *device, unsigned what, unsigned *out) {                                                \
        char key[WORD];                                                                                                \
        FATE(device->id);                                                                                              \
        snprintf(key, sizeof key, "%s.%u", prefix, what);                                                              \
        return number32(device, key, out);                                                                             \
    }

NUMBER_OF(nvmlDeviceGetClockInfo, "clock")
NUMBER_OF(nvmlDeviceGetMaxClockInfo, "max-clock")
NUMBER_OF(nvmlDeviceGetTemperature, "temperature")
NUMBER_OF(nvmlDeviceGetTemperatureThreshold, "threshold")

struct utilization {
    unsigned gpu, memory;
};

int nvmlDeviceGetUtilizationRates(struct device *device, struct utilization *out) {
    FATE(device->id);
    out->memory = 0;
    return number32(device, "utilization", &out->gpu);
}

static int clock_reasons(struct device *device, unsigned long long *out) {
    long long value;
    int code = number(device->id, "clock-reasons", &value);
    if (code == SUCCESS)
        *out = (unsigned long long)value;
    return code;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct device *device, unsigned long long *out) {
    FATE(device->id);
    return clock_reasons(device, out);
}

int nvmlDeviceGetEccMode(struct device *device, unsigned *current, unsigned *pending) {
    FATE(device->id);
    int code = number32(device, "ecc", current);
    *pending = *current;
    return code;
}

int nvmlDeviceGetTotalEccErrors(struct device *device, unsigned type, unsigned counter, unsigned long long *out) {
    char key[WORD];
    long long value;
    FATE(device->id);
    snprintf(key, sizeof key, "ecc.%s.%s", type ? "uncorrected" : "corrected", counter ? "aggregate" : "volatile");
    int code = number(device->id, key, &value);
    if (code == SUCCESS)
        *out = (unsigned long long)value;
    return code;
}

int nvmlDeviceGetRemappedRows(struct device *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    char value[WORD];
    FATE(device->id);
    if (!look_up("gpu", device->id, "remapped", value))
        return NOT_SUPPORTED;
    return sscanf(value, "%u %u %u %u", corrected, uncorrected, pending, failed) == 4 ? SUCCESS : INVALID_ARGUMENT;
}

/* --- memory --- */

struct memory {
    unsigned long long total, free, used;
};

int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *out) {
    long long total, used, reserved = 0;
    FATE(device->id);
    int code = number(device->id, "memory-total", &total);
    if (code == SUCCESS)
        code = number(device->id, "memory-used", &used);
    if (code != SUCCESS)
        return code;
    number(device->id, "memory-reserved", &reserved);
    out->total = (unsigned long long)total;
    out->used = (unsigned long long)(used + reserved); /* this version does not tell them apart */
    out->free = out->total - out->used;
    return SUCCESS;
}

/* --- processes --- */

struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

static int processes(const char *id, const char *kind, unsigned *count, struct process *out) {
    unsigned found = 0;
    int code = SUCCESS;
    pthread_mutex_lock(&lock);
    refresh();
    for (int i = 0; i < line_count; i++) {
        char bytes[WORD] = "";
        unsigned pid;
        if (strcmp(lines[i].kind, "process") != 0 || strcmp(lines[i].id, id) != 0 || strcmp(lines[i].key, kind) != 0 ||
            sscanf(lines[i].value, "%u %95s", &pid, bytes) != 2)
            continue;
        if (out != NULL && found < *count) {
            unsigned long long used = bytes[0] == '-' ? ~0ULL : strtoull(bytes, NULL, 0);
            out[found] = (struct process){pid, used, ~0U, ~0U};
        }
        found++;
    }
    pthread_mutex_unlock(&lock);
    if (found > (out == NULL ? 0 : *count))
        code = INSUFFICIENT_SIZE;
    *count = found;
    return code;
}

#define PROCESSES(function, kind)                                                                                      \
    int function(struct device *device, unsigned *count, struct process *out) {                                        \
        FATE(device->id);                                                                                              \
        return processes(device->id, kind, count, out);                                                                \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")

/* --- field values, NVLink, peers --- */

struct field_value {
    uint32_t field, scope;
    int64_t timestamp, latency;
    int type, code;
    union {
        unsigned ui;
        unsigned long long ull;
        int si;
    } value;
};

int nvmlDeviceGetFieldValues(struct device *device, int count, struct field_value *values) {
    FATE(device->id);
    for (int i = 0; i < count; i++) {
        char key[WORD];
        long long value;
        snprintf(key, sizeof key, "field.%u.%u", values[i].field, values[i].scope);
        values[i].code = number(device->id, key, &value);
        if (values[i].code != SUCCESS) {
            snprintf(key, sizeof key, "field.%u", values[i].field);
            values[i].code = number(device->id, key, &value);
        }
        if (values[i].code != SUCCESS)
            continue;
        memset(&values[i].value, 0xff, sizeof values[i].value); /* what is not of the type is not to be read */
        if (value < 0) {
            values[i].type = 5;
            values[i].value.si = (int)value;
        } else if (value <= UINT32_MAX) {
            values[i].type = 1;
            values[i].value.ui = (unsigned)value;
        } else {
            values[i].type = 3;
            values[i].value.ull = (unsigned long long)value;
        }
    }
    return SUCCESS;
}

int nvmlDeviceGetNvLinkState(struct device *device, unsigned link, unsigned *out) {
    char key[WORD];
    long long count;
    FATE(device->id);
    if (number(device->id, "links", &count) != SUCCESS)
        return NOT_SUPPORTED;
    if (link >= count)
        return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "link.%u", link);
    *out = 1;
    number32(device, key, out);
    return SUCCESS;
}

int nvmlDeviceGetP2PStatus(struct device *one, struct device *other, int index, int *out) {
    char key[WORD];
    long long value = 0;
    FATE(one->id);
    if (index != 0)
        return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "p2p.%s", other->id);
    number(one->id, key, &value);
    *out = (int)value;
    return SUCCESS;
}

/* --- fabric --- */

struct fabric_v1 {
    uint8_t cluster[16];
    int status;
    uint32_t clique;
    unsigned state;
};

int nvmlDeviceGetGpuFabricInfo(struct device *device, struct fabric_v1 *out) {
    char value[WORD];
    FATE(device->id);
    if (!look_up("gpu", device->id, "fabric", value))
        return NOT_SUPPORTED;
    *out = (struct fabric_v1){.status = 0};
    return sscanf(value, "%u %d", &out->state, &out->status) == 2 ? SUCCESS : INVALID_ARGUMENT;
}

/* --- MIG --- */

int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending) {
    FATE(device->id);
    int code = number32(device, "mig", current);
    *pending = *current;
    return code;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index, struct device **out) {
    char id[32], value[WORD];
    FATE(device->id);
    snprintf(id, sizeof id, "%s.%u", device->id, index);
    if (!look_up("gpu", id, "uuid", value))
        return NOT_FOUND;
    *out = device_of(id);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(struct device *device, unsigned *out) {
    FATE(device->id);
    return number32(device, "gpu-instance", out);
}

/* --- events --- */

struct set {
    long since[MAX_DEVICES]; /* the serial of the last Xid that is not news for a GPU, -1 if it is not registered */
    int changes; /* of the folder of the scenario, as inotify tells them: a wait costs as little as one in the driver */
};
struct event {
    struct device *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

/* The first Xid of a registered GPU after those that were told, 0 if there is none. With the lock held. */
static long next_xid(const struct set *set, struct event *out) {
    long first = 0;
    for (int i = 0; i < line_count; i++) {
        long serial = atol(lines[i].id);
        if (strcmp(lines[i].kind, "xid") != 0 || (first != 0 && serial >= first))
            continue;
        for (int d = 0; d < device_count; d++)
            if (strcmp(devices[d].id, lines[i].key) == 0 && set->since[d] >= 0 && serial > set->since[d]) {
                *out = (struct event){&devices[d], 0x8, 0, ~0U, ~0U};
                sscanf(lines[i].value, "%llu %u", &out->data, &out->gpu_instance);
                first = serial;
            }
    }
    return first;
}

int nvmlEventSetCreate(struct set **out) {
    FATE("*");
    *out = malloc(sizeof **out);
    for (int d = 0; d < MAX_DEVICES; d++)
        (*out)->since[d] = -1;
    (*out)->changes = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", getenv("STANDIN_NVML"));
    inotify_add_watch((*out)->changes, dirname(path), IN_MOVED_TO);
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, struct set *set) {
    FATE(device->id);
    if (types != 0x8)
        return NOT_SUPPORTED;
    pthread_mutex_lock(&lock);
    refresh();
    long last = 0;
    for (int i = 0; i < line_count; i++)
        if (strcmp(lines[i].kind, "xid") == 0 && strcmp(lines[i].key, device->id) == 0 && atol(lines[i].id) > last)
            last = atol(lines[i].id);
    set->since[device - devices] = last;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int nvmlEventSetWait_v2(struct set *set, struct event *out, unsigned timeout) {
    for (;;) {
        FATE("*");
        int code = SUCCESS; /* a lost GPU fails the set that it is in, once its Xids are told */
        for (int d = 0; d < device_count && code == SUCCESS; d++)
            if (set->since[d] >= 0)
                code = fate(devices[d].id, __func__);
        pthread_mutex_lock(&lock);
        refresh();
        long serial = next_xid(set, out);
        if (serial != 0)
            set->since[out->device - devices] = serial;
        pthread_mutex_unlock(&lock);
        if (serial != 0)
            return SUCCESS;
        if (code != SUCCESS)
            return code;
        struct pollfd change = {set->changes, POLLIN, 0};
        if (poll(&change, 1, (int)timeout) == 0)
            return TIMEOUT;
        char told[4096];
        while (read(set->changes, told, sizeof told) > 0)
            continue;
    }
}

int nvmlEventSetFree(struct set *set) {
    close(set->changes);
    free(set);
    return SUCCESS;
}

/* --- what an old driver lacks --- */

#ifndef OLD_DRIVER

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct memory_v2 *out) {
    long long total, used, reserved = 0;
    FATE(device->id);
    if (out->version != 0x02000028)
        return VERSION_MISMATCH;
    int code = number(device->id, "memory-total", &total);
    if (code == SUCCESS)
        code = number(device->id, "memory-used", &used);
    if (code != SUCCESS)
        return code;
    number(device->id, "memory-reserved", &reserved);
    out->total = (unsigned long long)total;
    out->used = (unsigned long long)used;
    out->reserved = (unsigned long long)reserved;
    out->free = out->total - out->used - out->reserved;
    return SUCCESS;
}

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")

int nvmlDeviceGetCurrentClocksEventReasons(struct device *device, unsigned long long *out) {
    FATE(device->id);
    return clock_reasons(device, out);
}

struct temperature {
    unsigned version, sensor;
    int value;
};

int nvmlDeviceGetTemperatureV(struct device *device, struct temperature *out) {
    FATE(device->id);
    if (out->version != 0x100000C)
        return VERSION_MISMATCH;
    return number32(device, "temperature.0", (unsigned *)&out->value);
}

struct margin {
    unsigned version;
    int value;
};

int nvmlDeviceGetMarginTemperature(struct device *device, struct margin *out) {
    FATE(device->id);
    if (out->version != 0x1000008)
        return VERSION_MISMATCH;
    return number32(device, "margin", (unsigned *)&out->value);
}

struct fabric {
    unsigned version;
    uint8_t cluster[16];
    int status;
    uint32_t clique;
    unsigned state;
    uint32_t mask;
    uint8_t summary; /* from version 3 on */
};

/* gpu ID fabric STATE STATUS MASK [SUMMARY]; without SUMMARY the driver knows version 2 only */
int nvmlDeviceGetGpuFabricInfoV(struct device *device, struct fabric *out) {
    char value[WORD];
    unsigned state, mask, summary;
    int status;
    FATE(device->id);
    if (!look_up("gpu", device->id, "fabric", value))
        return NOT_SUPPORTED;
    int words = sscanf(value, "%u %d %x %u", &state, &status, &mask, &summary);
    if (out->version != 0x02000024 && !(out->version == 0x03000028 && words == 4))
        return VERSION_MISMATCH;
    memset(out->cluster, 0, sizeof out->cluster);
    out->state = state;
    out->status = status;
    out->clique = 0;
    out->mask = mask;
    if (out->version == 0x03000028)
        out->summary = (uint8_t)summary;
    return SUCCESS;
}

#endif
