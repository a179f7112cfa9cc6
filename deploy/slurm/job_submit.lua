-- Checks what cli_filter.lua wrote into a job's comment, in the controller and without any network: this script
-- runs under the controller's locks. It refuses a job that asks for less than its plan needs.
--
--     tightfit:job.json request_mib=20480 types=h100,a100
--     tightfit-cpu:job.json request_mib=20480 types=
--
-- A job without these words passes: the filter was not installed, or the planner did not answer.

local function listed(name, names)
   for each in names:gmatch("[^,]+") do
      if each == name then return true end
   end
   return false
end

-- MiB of main memory on a node; nil where the job leaves it to the partition.
local function memory_mib(job_desc)
   local per_node = job_desc.min_mem_per_node
   if per_node ~= nil and per_node ~= slurm.NO_VAL64 then return per_node end
   local per_cpu = job_desc.min_mem_per_cpu
   if per_cpu == nil or per_cpu == slurm.NO_VAL64 then return nil end
   local cpus = job_desc.min_cpus
   if cpus == nil or cpus == slurm.NO_VAL then cpus = 1 end
   return per_cpu * cpus
end

local function refuse(words, ...)
   slurm.log_user("tightfit: " .. words, ...)
   return slurm.ERROR
end

local function check_memory(job_desc, request_mib)
   local memory = memory_mib(job_desc)
   if memory ~= nil and memory > 0 and memory < request_mib then
      return refuse("--mem=%dM is less than the plan's request: ask for --mem=%dM or leave it out",
         memory, request_mib)
   end
   return slurm.SUCCESS
end

local function check_devices(job_desc, types)
   local asked = job_desc.tres_per_node or job_desc.gres or ""
   if not asked:match("gpu") then
      return refuse("the job asks for no GPU: use --gres=gpu:TYPE:1 with TYPE among %s", types)
   end
   local named = asked:match("gpu[:=](%a[%w_%-]*)")
   if named ~= nil and not listed(named, types) then
      return refuse("a GPU of type %s does not hold the plan; these do: %s", named, types)
   end
   return slurm.SUCCESS
end

function slurm_job_submit(job_desc, part_list, submit_uid)
   local device, request_mib, types =
      (job_desc.comment or ""):match("^tightfit(%-?%a*):%S+ request_mib=(%d+) types=(%S*)")
   if request_mib == nil then return slurm.SUCCESS end
   if device == "-cpu" then return check_memory(job_desc, tonumber(request_mib)) end
   return check_devices(job_desc, types)
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
   return slurm.SUCCESS
end

return slurm.SUCCESS
