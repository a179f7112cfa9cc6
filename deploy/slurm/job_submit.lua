-- Checks what cli_filter.lua wrote into a job's comment, in the controller and without any network: this script
-- runs under the controller's locks. It refuses a job that asks for less than its plan needs, whichever option
-- said it, and names the type of GPUs that were asked for without one: any of them could be given else.
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

-- Where devices are asked for: --gres and --gpus-per-node, --gpus, --gpus-per-task, --gpus-per-socket.
local PLACES = {"tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket"}

-- One entry, such as gres:gpu:a100:2, gres/gpu=2 or gpu:1g.10gb:1: whether it is one of GPUs, their type (nil: any),
-- and what it says after the type.
local function gpus_of(entry)
   local rest = entry:gsub("^gres[:/]", ""):match("^gpu(.*)$")
   if rest == nil or not rest:match("^[:=]?") or rest:match("^[%w_]") then return false end
   local first, count = rest:match("^[:=]([^:=]+)(.*)$")
   if first == nil then return true, nil, "" end
   if first:match("^%d+[kKmMgG]?$") then return true, nil, rest end
   return true, first, count
end

-- Nodes of acceptable types only, by features that are called like them: then GPUs need no type.
local function are_chosen_by_features(features, types)
   if features == nil or features == "" then return false end
   for feature in features:gmatch("[^|]+") do
      if not listed(feature, types) then return false end
   end
   return true
end

-- The entries of one place, those of no type named; then what was found: how many ask for GPUs, and an unfit type.
local function checked(text, types, may_be_any)
   local entries, count, unfit = {}, 0, nil
   for entry in text:gmatch("[^,]+") do
      local is_gpu, kind, rest = gpus_of(entry)
      if is_gpu then count = count + 1 end
      if is_gpu and kind == nil and not may_be_any then
         local prefix = entry:match("^gres[:/]") or ""
         entry = prefix .. "gpu:" .. types:match("^[^,]+") .. (rest == "" and ":1" or rest)
      elseif is_gpu and kind ~= nil and not listed(kind, types) then
         unfit = kind
      end
      table.insert(entries, entry)
   end
   return table.concat(entries, ","), count, unfit
end

local function check_devices(job_desc, types)
   local may_be_any = types == "" or are_chosen_by_features(job_desc.features, types)
   local asked = 0
   for _, place in ipairs(PLACES) do
      local text = job_desc[place]
      if text ~= nil and text ~= "" then
         local named, count, unfit = checked(text, types, may_be_any)
         if unfit ~= nil then
            return refuse("a GPU of type %s does not hold the plan; these do: %s", unfit, types)
         end
         if named ~= text then
            slurm.log_user("tightfit: %s names no type of GPU: %s", text, named)
            job_desc[place] = named
         end
         asked = asked + count
      end
   end
   if asked == 0 then
      return refuse("the job asks for no GPU: use --gres=gpu:TYPE:1 with TYPE among %s", types)
   end
   return slurm.SUCCESS
end

function slurm_job_submit(job_desc, part_list, submit_uid)
   local prefix, request_mib, types =
      (job_desc.comment or ""):match("^(tightfit[^:%s]*:)%S+ request_mib=(%d+) types=(%S*)")
   if prefix == "tightfit-cpu:" then return check_memory(job_desc, tonumber(request_mib)) end
   if prefix == "tightfit:" then return check_devices(job_desc, types) end
   return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
   return slurm.SUCCESS
end

return slurm.SUCCESS
