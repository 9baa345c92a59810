/*
 * cmd_doctor.c - `gyaru doctor`: what this machine offers, and who holds the GPUs' memory. It ends
 * no process.
 */
#include "cli/cli.h"
#include "cli/human.h"
#include "cli/options.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct doctor_options {
    const char *device; /* NULL: none */
    bool json;
};

#define AT(field) offsetof(struct doctor_options, field)

static const struct option_spec doctor_specs[] = {
    {0, "device", OPTION_TEXT, AT(device), 0, 0, "NAME",
     "open this one, too: cpu, cuda, cuda:N or cuda:N,M, which tries the link between the GPUs"},
    {0, "json", OPTION_FLAG, AT(json), 0, 0, NULL, "one JSON document"},
    OPTION_END};

static void print_cpu(json_t *cpu)
{
    const char *name;
    json_t *has;
    printf("processor   %s, %lld cores (%s)\n", human_text_at(cpu, "model"),
           (long long)json_integer_value(json_object_get(cpu, "cores")),
           human_text_at(cpu, "architecture"));
    printf("  kernels   %s\n  features ", human_text_at(cpu, "kernels"));
    json_object_foreach(json_object_get(cpu, "features"), name, has)
    {
        if (json_is_true(has))
            printf(" %s", name);
    }
    printf("\n  missing  ");
    json_object_foreach(json_object_get(cpu, "features"), name, has)
    {
        if (!json_is_true(has))
            printf(" %s", name);
    }
    printf("\n");
}

/* Version 1 of the control groups writes "none" as a number near 2^63. */
#define NO_LIMIT ((json_int_t)1 << 60)

static void print_memory(const json_t *memory, const json_t *limits)
{
    const json_t *max = json_object_get(limits, "memory_max_bytes");
    printf("memory      %s available of %s\n", human_bytes_at(memory, "available_bytes").text,
           human_bytes_at(memory, "total_bytes").text);
    if (json_is_integer(max) && json_integer_value(max) < NO_LIMIT)
        printf("  limit     %s for this container, %s used\n",
               human_bytes_at(limits, "memory_max_bytes").text,
               human_bytes_at(limits, "memory_used_bytes").text);
    else
        printf("  limit     none for this container\n");
}

static void print_process(const json_t *p)
{
    const json_t *mib = json_object_get(p, "mib");
    printf("    pid %-8lld", (long long)json_integer_value(json_object_get(p, "pid")));
    if (json_is_integer(mib))
        printf(" %8lld MiB", (long long)json_integer_value(mib));
    else
        printf(" %8s    ", "?");
    printf("  %s\n", human_text_at(p, "name"));
}

static void print_gpu(size_t index, const json_t *gpu)
{
    const json_t *processes = json_object_get(gpu, "processes"), *process;
    size_t i;
    printf("  %-9zu %s, %s free of %s\n", index, human_text_at(gpu, "name"),
           human_bytes_at(gpu, "free_bytes").text, human_bytes_at(gpu, "total_bytes").text);
    if (json_object_get(gpu, "problem"))
        printf("    the driver would not tell %s\n", human_text_at(gpu, "problem"));
    json_array_foreach(processes, i, process) print_process(process);
}

static void print_nvidia(const json_t *nvidia)
{
    size_t i;
    const json_t *gpu;
    if (json_object_get(nvidia, "problem")) {
        printf("GPUs        %s\n", human_text_at(nvidia, "problem"));
        return;
    }
    printf("GPUs        NVIDIA driver %s\n", human_text_at(nvidia, "driver"));
    json_array_foreach(json_object_get(nvidia, "gpus"), i, gpu) print_gpu(i, gpu);
}

static void print_report(const json_t *root)
{
    size_t i;
    const json_t *device;
    print_cpu(json_object_get(root, "cpu"));
    print_memory(json_object_get(root, "memory"), json_object_get(root, "limits"));
    print_nvidia(json_object_get(root, "nvidia"));
    printf("devices\n");
    json_array_foreach(json_object_get(root, "devices"), i, device)
    {
        bool usable = json_is_true(json_object_get(device, "usable"));
        const json_t *description = json_object_get(device, "description");
        printf("  %-9s %s%s%s\n", human_text_at(device, "name"),
               usable ? "usable" : human_text_at(device, "reason"), description ? ": " : "",
               description ? json_string_value(description) : "");
    }
}

static int doctor(void *user, struct gyaru_error *err)
{
    const struct doctor_options *o = user;
    char *text;
    if (gyaru_doctor(o->device, &text, err))
        return -1;
    json_t *root = o->json ? NULL : json_parse(text, strlen(text), "doctor", err);
    int rc = 0;
    if (o->json)
        puts(text);
    else if (root)
        print_report(root);
    else
        rc = -1;
    json_decref(root);
    free(text);
    return rc;
}

static int main_doctor(int argc, char **argv)
{
    struct doctor_options options = {0};
    const struct option_group groups[] = {{doctor_specs, &options}, {NULL, NULL}};
    const struct option_help help = {
        "doctor", "[options]",
        "Shows the processor and its kernels, memory and its limits, the GPUs with their driver "
        "and\n"
        "free memory, and which processes hold GPU memory. Nothing is changed or ended.",
        groups};
    return options_run(&help, argc, argv, doctor, &options);
}

const struct command cmd_doctor = {"doctor", "processor, memory, GPUs and who uses them",
                                   main_doctor};
